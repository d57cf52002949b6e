"""One job as `status` shows it, for a table and for scripts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from tdmpc_lab.jobs.metrics import opponents_of
from tdmpc_lab.jobs.paths import JobPaths
from tdmpc_lab.jobs.queued import QueueLine, share_at_limit
from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.jobs.state import JobStatus, SchedulerState, State
from tdmpc_lab.launch.attempts import DEAD_S
from tdmpc_lab.launch.queue import waits
from tdmpc_lab.sharing import user_name

NOT_OURS = "(not of this project)"
UNRECORDED = "(of this project, but without a record: it is being submitted, or its folder was removed)"
KEYS = (
    "id", "experiment", "about", "state", "cause", "step", "steps", "attempt", "node", "elapsed_s", "eta_s",
    "steps_per_s", "return", "win", "wins", "mlflow_run", "traceback", "sweep", "cluster", "partition", "user",
    "submitted_at", "limit_left_s", "done_at_limit", "sign_of_life_s", "slurm", "foreign",
)  # fmt: skip
"""Of a job in `status --json`; see docs/status.md."""


@dataclass(frozen=True)
class JobView:
    """One job for the table: its record and status, or the reason why it can't be read.

    A job in the queue that the project knows nothing of has neither, but a `line`.
    """

    id: str
    record: JobRecord | None
    status: JobStatus | None
    problem: str | None = None
    traceback: str | None = None
    """Of a failed job."""
    slurm_answered: bool = True
    """False when SLURM could not be asked about this job: then the status is what was last known."""
    over: bool = False
    """Whether it is known that it neither runs nor will: an outcome, or no trace and no heartbeat of it where its
    scheduler could be asked. What starts a job again, cancels it or removes its files asks this."""
    unseen: bool = False
    """Whether only its heartbeats say that it runs: its scheduler does not know it."""
    line: QueueLine | None = None
    """How SLURM's queue shows it, while it waits or runs there."""
    user: str | None = None
    """Who submitted it."""
    sign_of_life_s: float | None = None
    """Seconds since the running job's last sign of life; None where it has given none."""
    folder: str | None = None
    """Working directory of a job that the project knows nothing of."""

    @property
    def foreign(self) -> bool:
        """Whether the project knows nothing of this job but its line in the queue."""
        return self.record is None and self.line is not None

    @property
    def goes_on(self) -> bool:
        """Whether it waits or runs, as far as is known."""
        return self.foreign or (self.status is not None and self.status.state in (State.PENDING, State.RUNNING))

    @property
    def state(self) -> State:
        """Its state; UNKNOWN for a job that can't be read."""
        if self.status is not None:
            return self.status.state
        if self.line is not None:
            return State.PENDING if waits(self.line) else State.RUNNING
        return State.UNKNOWN

    @property
    def partition(self) -> str:
        """Where it waits or runs: the partition, or `local`, `debug`."""
        if self.line is not None:
            return self.line.partition
        if self.record is None:
            return ""
        return str(self.record.resources.get("partition") or self.record.cluster)

    @property
    def limit_left_s(self) -> float | None:
        """Seconds until SLURM's time limit, while it runs."""
        return self.line.left_s if self.line is not None and self.state is State.RUNNING else None

    @property
    def done_at_limit(self) -> float | None:
        """The share of its steps it will have done at its time limit; None where it is done before, or not known."""
        s, left = self.status, self.limit_left_s
        if s is None or left is None or s.steps_per_s is None or s.eta_s is None:
            return None
        return share_at_limit(s.step or 0, s.steps, s.steps_per_s, left)

    @property
    def silent(self) -> bool:
        """Whether a running job has given no sign of life for longer than it may."""
        return self.sign_of_life_s is not None and self.sign_of_life_s > DEAD_S

    def as_dict(self) -> dict[str, Any]:
        """For scripts."""
        here = {"user": self.user, "partition": self.partition or None, "slurm": _slurm(self.line)}
        if self.record is None or self.status is None:
            known = {"id": self.id, "state": self.state.value, "cause": self.problem, "foreign": self.foreign}
            named = {"about": self.problem, "cause": None, "cluster": "slurm"} if self.foreign else {}
            return dict.fromkeys(KEYS) | here | known | named
        s, record = self.status, self.record
        evaluation = s.latest_eval or {}
        return {
            "id": self.id,
            "experiment": record.experiment,
            "about": record.about,
            "state": s.state.value,
            "cause": s.cause,
            "step": s.step,
            "steps": s.steps,
            "attempt": s.attempt,
            "node": s.node,
            "elapsed_s": s.elapsed_s,
            "eta_s": s.eta_s,
            "steps_per_s": s.steps_per_s,
            "win": evaluation.get("win"),
            "wins": {name: evaluation.get(f"win{suffix}") for name, suffix in opponents_of(evaluation)} or None,
            "return": evaluation.get("return_mean", s.latest_return),
            "mlflow_run": s.run_id,
            "traceback": self.traceback,
            "sweep": record.sweep,
            "cluster": record.cluster,
            **here,
            "submitted_at": record.submitted_at,
            "limit_left_s": self.limit_left_s,
            "done_at_limit": self.done_at_limit,
            "sign_of_life_s": self.sign_of_life_s,
            "foreign": False,
        }


def foreign_view(job_id: str, line: QueueLine, about: str) -> JobView:
    """A job in the queue that the project knows nothing of; `about` says what it is instead."""
    return JobView(job_id, None, None, about, line=line, user=line.user or None, folder=line.folder or None)


_user_name = cache(user_name)  # the same few for thousands of jobs


def owner_of(paths: JobPaths, scheduler: SchedulerState | None = None) -> str | None:
    """Who submitted a job: by SLURM's queue, else the owner of its folder."""
    if scheduler is not None and scheduler.line is not None and scheduler.line.user:
        return scheduler.line.user
    try:
        return _user_name(paths.folder.stat().st_uid)
    except OSError:
        return None


def _slurm(line: QueueLine | None) -> dict[str, Any] | None:
    """The columns of squeue."""
    if line is None:
        return None
    return {
        "name": line.name,
        "state": line.word,
        "time": line.used,
        "limit": line.limit,
        "nodes": line.nodes,
        "nodelist_or_reason": line.place,
        "begin": None if line.held else line.begin or None,
    }
