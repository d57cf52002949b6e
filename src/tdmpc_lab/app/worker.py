"""The job itself: what runs on the node, whichever launcher started it.

The order of things at the end is on purpose: first the outcome in the job's own events, then the note, then
MLflow. A note or a store that fails costs a warning, never the job.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from tdmpc_lab.app.journal import mlflow_description, write_note
from tdmpc_lab.app.mirroring import run_files, start_mirror
from tdmpc_lab.config.loader import load_resolved
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.errors import LabError, TrainingError
from tdmpc_lab.jobs.events import EventLog, read_events
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import read_record
from tdmpc_lab.jobs.state import SchedulerState
from tdmpc_lab.launch.slurm import running_id
from tdmpc_lab.text import shorten
from tdmpc_lab.tracking.mirror import MlflowMirror
from tdmpc_lab.tracking.run import RunStatus
from tdmpc_lab.training.stop import StopFlag

if TYPE_CHECKING:
    from tdmpc_lab.training.loop import Trainer, TrainResult
    from tdmpc_lab.training.metrics import Row
    from tdmpc_lab.training.progress import Progress

RUNNING = SchedulerState("RUNNING")
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run_job(root: str, job_id: str | None = None) -> dict[str, Any]:
    """Run the job `job_id` of the project at `root`; without an id, the SLURM job this process belongs to.

    Goes on from the last checkpoint if there is one. Returns `{"step", "stopped"}`.

    Raises:
        LabError and whatever the training raises, after the outcome is on file.
    """
    project = Project(Path(root))
    job_id = job_id or running_id()
    if job_id is None:
        raise LabError("this process is in no SLURM job (SLURM_JOB_ID is not set), and no job id was given")
    return _Run(project, project.job(job_id)).run()


class _Run:
    """One attempt of one job."""

    def __init__(self, project: Project, paths: JobPaths) -> None:
        self.project, self.paths = project, paths
        self.record = read_record(paths)
        self.log = EventLog(paths.events)
        self.attempt = 1 + sum(e.get("event") == "started" for e in read_events(paths.events))
        self.stop = StopFlag()
        self.mirror: MlflowMirror | None = None
        self.progress: Progress | None = None
        self.trainer: Trainer | None = None

    def run(self) -> dict[str, Any]:
        """Train, and put the outcome on file whatever happens."""
        with signals_to(self.stop):  # before the job says that it has started: from then on it may be cancelled
            self.log.append(
                "started",
                host=socket.gethostname(),
                pid=os.getpid(),
                attempt=self.attempt,
                job=self.record.id,
                python=platform.python_version(),
            )
            self._write_note()
            try:
                result = self._train()
            except BaseException as error:
                self.log.append(
                    "failed",
                    cause=cause_of(error),
                    error=type(error).__name__,
                    traceback=traceback.format_exc(),
                    step=None if self.trainer is None else self.trainer.step,
                    attempt=self.attempt,
                )
                self._finish("FAILED")
                raise
            if result.stopped is None:
                self.log.append("finished", step=result.step, attempt=self.attempt)
                self._finish("FINISHED")
            else:
                self.log.append("stopped", reason=result.stopped, step=result.step, attempt=self.attempt)
                self._finish("KILLED")
        return {"step": result.step, "stopped": result.stopped}

    def _train(self) -> TrainResult:
        from tdmpc_lab.app.opponents import frozen_opponents
        from tdmpc_lab.training.build import Places, build_trainer, hardware
        from tdmpc_lab.training.checkpoints import CheckpointStore
        from tdmpc_lab.training.metrics import JsonlSink
        from tdmpc_lab.training.progress import make_progress

        spec = load_resolved(self.paths.resolved)
        store = CheckpointStore(self.paths.checkpoints)
        sink = JsonlSink(self.paths.metrics)
        in_person = self.record.cluster == "debug"
        self.progress = make_progress({self.record.experiment: spec.train.steps}, None if in_person else sys.stdout)
        try:
            trainer = self.trainer = build_trainer(
                spec,
                sink=sink,
                places=Places(store, self.paths.videos, self.paths.pool, frozen_opponents(self.paths)),
                stop=self.stop,
                observe=self._observe,
                on_event=self._on_event,
                attempt=self.attempt,
            )
            ready = hardware(trainer)
            self.log.append("ready", **asdict(ready))
            self.progress.message(self.record.experiment, f"training on {ready.device}; {ready.replay}")
            self._resume(trainer, store)
            self._start_mirror(spec, ready.gpu)
            return trainer.run()
        finally:
            self.progress.close()
            sink.close()

    def _resume(self, trainer: Trainer, store: Any) -> None:
        state = store.load_latest()
        for problem in store.skipped:
            self._warn(f"checkpoint passed over: {problem}")
        if state is not None:
            trainer.load_state_dict(state)

    def _start_mirror(self, spec: Spec, gpu: str | None) -> MlflowMirror:
        host = socket.gethostname()
        self.mirror = start_mirror(
            self.project, self.paths, self.record, spec, attempt=self.attempt, node=host, gpu=gpu
        )
        return self.mirror

    def _observe(self, row: Row) -> None:
        if self.progress is not None:
            self.progress.row(self.record.experiment, row)
        if row["split"] == "eval":
            self._write_note()

    def _on_event(self, kind: str, fields: Mapping[str, Any]) -> None:
        self.log.append(kind, **fields)
        if self.progress is not None and (text := event_text(kind, fields)):
            self.progress.message(self.record.experiment, text)

    def _warn(self, message: str) -> None:
        self._on_event("warning", {"message": message})

    def _write_note(self) -> str | None:
        try:
            note = write_note(self.project, self.paths, RUNNING)
        except LabError as error:
            self._warn(f"the note was not written: {error}")
            return None
        if self.mirror is not None:
            self.mirror.set_description(mlflow_description(self.paths, RUNNING, note))
        return note

    def _finish(self, status: RunStatus) -> None:
        """Note and MLflow after the outcome; their troubles are put on file and change nothing."""
        self._write_note()
        try:
            mirror = self.mirror or self._start_mirror(load_resolved(self.paths.resolved), None)
        except LabError as error:  # it failed before training began, and its spec can't be read either
            self._warn(f"MLflow was not told: {error}")
            return
        report = mirror.close(status, files=run_files(self.paths))
        if report.problem is not None:
            self._warn(f"MLflow is not complete: {report.problem}")
        self._write_note()  # again: only now the run's id is sure to be known


@contextlib.contextmanager
def signals_to(stop: StopFlag) -> Iterator[None]:
    """Within, SIGTERM and SIGINT set the stop flag instead of ending the process; restored after.

    A second Ctrl-C interrupts at once: an environment that hangs never comes to the end of its step.
    """

    def handler(number: int, _frame: FrameType | None) -> None:
        if stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set(signal.Signals(number).name)

    before = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def cause_of(error: BaseException) -> str:
    """Why a job failed, in one line: our own errors speak for themselves, others with their type.

    An environment's own exception hides behind ours; its type and words are in ours already.
    """
    text = str(error).strip() or "no message"
    if isinstance(error, LabError | TrainingError):
        return shorten(text, 300)
    return shorten(f"{type(error).__name__}: {text}", 300)


def event_text(kind: str, fields: Mapping[str, Any]) -> str | None:
    """An event for a person who watches; None for those that say nothing to him."""
    say = _EVENT_TEXTS.get(kind)
    return None if say is None else say(fields)


def _phase_text(fields: Mapping[str, Any]) -> str:
    changes = f": {', '.join(fields['changes'])}" if fields["changes"] else ""
    return f"step {fields['step']:,}: phase {fields['phase']} begins{changes}"


_EVENT_TEXTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "warm_up": lambda e: f"step {e['step']:,}: learning from the seed steps ({e['updates']:,} updates)",
    "resumed": lambda e: f"going on from step {e['step']:,} (attempt {e['attempt']})",
    "checkpoint": lambda e: f"checkpoint {e['file']}",
    "phase": _phase_text,
    "video": lambda e: f"video {e['file']}: {e['of']}",
    "self_play_copy": lambda e: f"step {e['step']:,}: copy {e['copy']} of the agent joins its pool of opponents",
    "episode_dropped": lambda e: (
        f"environment {e['env']}: its running episode did not come out the same again and was dropped"
    ),
    "warning": lambda e: str(e["message"]),
}
