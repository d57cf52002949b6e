"""`show`: everything about one job, gathered from its folder, its note and the scheduler."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from tdmpc_lab.app.queue.status import JobView, job_views
from tdmpc_lab.errors import NoteError, RecordError
from tdmpc_lab.files import read_jsonl
from tdmpc_lab.jobs.events import read_events
from tdmpc_lab.jobs.heartbeats import LastHeartbeat, last_heartbeat, no_heartbeats
from tdmpc_lab.jobs.metrics import LATEST, as_float, as_int, eval_rows, latest_rows
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.jobs.state import FAREWELLS, State, attempt_end, split_attempts
from tdmpc_lab.notes.entries import Entry, read_entry
from tdmpc_lab.text import number, one_line, parse_time


@dataclass(frozen=True)
class Attempt:
    """One start of a job."""

    number: int
    node: str | None
    started_at: datetime | None
    ended_at: datetime | None
    """When it said how it ended; of one that never did, its last sign on file."""
    ending: str
    """How it ended, in words; empty while it continues."""

    def as_dict(self) -> dict[str, Any]:
        """For scripts."""
        moments = {
            key: None if moment is None else moment.isoformat()
            for key, moment in (("started_at", self.started_at), ("ended_at", self.ended_at))
        }
        return {**asdict(self), **moments}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is there."""

    step: int
    size: int
    path: Path


@dataclass(frozen=True)
class JobPage:
    """All that is known of a job that has a record."""

    view: JobView
    record: JobRecord
    paths: JobPaths
    attempts: list[Attempt]
    hardware: Mapping[str, Any]
    """What the last attempt found: device, gpu, threads, torch."""
    latest: dict[str, float]
    """The newest value of every number in the training's rows."""
    evaluations: list[dict[str, Any]]
    later: list[dict[str, Any]]
    """Rows of evaluations after the training."""
    checkpoints: list[Checkpoint]
    videos: list[Path]
    warnings: list[str]
    tracking: Mapping[str, Any] | None
    """The MLflow run: run_id, experiment_id, store."""
    entry: Entry | None
    """What the note says."""
    problems: list[str] = field(default_factory=list)
    """Files that can't be read."""

    def as_dict(self, project: Project) -> dict[str, Any]:
        """For scripts: what `status` gives, and more."""
        r = self.record
        return {
            **self.view.as_dict(),
            "why": r.why,
            "compare_to": r.compare_to,
            "diff": list(r.diff),
            "overrides": list(r.overrides),
            "seed": r.seed,
            "env": r.env_id,
            "group": r.group,
            "resources": r.resources,
            "code": {"commit": r.git_commit, "dirty": r.git_dirty, "snapshot": r.snapshot, "why_none": r.live_code},
            "parent": r.parent,
            "rerun_of": r.rerun_of,
            "start_from": r.start_from,
            "folder": str(self.paths.folder),
            "attempts": [attempt.as_dict() for attempt in self.attempts],
            "hardware": dict(self.hardware),
            "latest": self.latest,
            "evaluations": self.evaluations,
            "later_evaluations": self.later,
            "checkpoints": [{"step": c.step, "bytes": c.size, "path": str(c.path)} for c in self.checkpoints],
            "videos": [str(path) for path in self.videos],
            "warnings": self.warnings,
            "mlflow": None if self.tracking is None else dict(self.tracking),
            "note": str(project.note(self.paths.id)),
            "words": [] if self.entry is None else list(self.entry.words),
            "verdict": None if self.entry is None or self.entry.verdict is None else self.entry.verdict.as_dict(),
            "commands": [command for command, _ in commands(self)],
            "problems": self.problems,
        }


def job_page(project: Project, job_id: str) -> JobPage | JobView:
    """The page of a job; only its view where its record can't be read. Files that are damaged are `problems`."""
    (view,) = job_views(project, [job_id])
    if view.record is None:
        return view
    paths = project.job(job_id)
    problems: list[str] = [] if view.problem is None else [view.problem]
    events: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    evaluations: list[dict[str, Any]] = []
    later: list[dict[str, Any]] = []
    with _told(problems):
        events = read_events(paths.events)
    with _told(problems):
        rows = latest_rows(paths, LATEST)
    with _told(problems):
        evaluations = eval_rows(paths)
    with _told(problems):
        later = read_jsonl(paths.evals)[0]
    return JobPage(
        view=view,
        record=view.record,
        paths=paths,
        attempts=attempts_of(events, partial(last_heartbeat, paths.attempts), goes_on=view.state is State.RUNNING),
        hardware=next((_hardware(event) for event in reversed(events) if event.get("event") == "ready"), {}),
        latest=latest_values(rows),
        evaluations=evaluations,
        later=later,
        checkpoints=_checkpoints(paths),
        videos=sorted(paths.videos.glob("*.*")) if paths.videos.is_dir() else [],
        warnings=[one_line(str(event.get("message"))) for event in events if event.get("event") == "warning"],
        tracking=next((_run(event) for event in reversed(events) if event.get("event") == "tracking"), None),
        entry=note_entry(project, job_id),
        problems=list(dict.fromkeys(problems)),
    )


def note_entry(project: Project, job_id: str) -> Entry | None:
    """What a job's note says; None where there is none that can be read."""
    try:
        return read_entry(project.note(job_id))
    except NoteError:
        return None


def attempts_of(
    events: Sequence[Mapping[str, Any]], last_heartbeat: LastHeartbeat = no_heartbeats, *, goes_on: bool
) -> list[Attempt]:
    """The starts of a job, oldest first; `goes_on`: the last one runs."""
    groups = [group for group in split_attempts(events) if group and group[0].get("event") == "started"]
    found = []
    for index, group in enumerate(groups):
        last = index == len(groups) - 1
        end = next((event for event in reversed(group) if event.get("event") in FAREWELLS), None)
        runs = last and goes_on and end is None
        found.append(
            Attempt(
                number=as_int(group[0].get("attempt")) or index + 1,
                node=str(group[0]["host"]) if group[0].get("host") else None,
                started_at=parse_time(group[0].get("time")),
                ended_at=None if runs else _ended_at(end, group, index + 1, last_heartbeat),
                ending="" if runs else "left no word" if end is None else _ending(end),
            )
        )
    return found


def _ended_at(
    end: Mapping[str, Any] | None, group: Sequence[Mapping[str, Any]], number: int, last_heartbeat: LastHeartbeat
) -> datetime | None:
    """The time of the word with which an attempt ended, else its last sign."""
    return attempt_end(group, number, last_heartbeat) if end is None else parse_time(end.get("time"))


def _ending(event: Mapping[str, Any]) -> str:
    """`preempted (time limit) at step 1,252`."""
    why = event.get("why") or event.get("reason") or event.get("cause")
    step = as_int(event.get("step"))
    parts = [str(event["event"]), f"({one_line(str(why))})" if why else ""]
    return " ".join(part for part in (*parts, f"at step {number(step)}" if step is not None else "") if part)


def latest_values(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The newest value of every number in rows of the training, in the order of the rows' keys."""
    found: dict[str, float] = {}
    for row in rows:
        if row.get("split") == "train":
            found |= {key: row[key] for key in row if as_float(row[key]) is not None}
    return {key: value for key, value in found.items() if key not in ("attempt", "env")}


def commands(page: JobPage) -> list[tuple[str, str]]:
    """What can be done with a job now: the command, and what it does."""
    job, s, cluster = page.record.id, page.view.status, page.record.cluster
    found: list[tuple[str, str]] = []
    if page.view.goes_on:
        found += [(f"logs -f {job}", "what it prints"), (f"status {job} --watch", "how it is doing")]
        found += [(f"wait {job}", "to its end; its outcome is the exit code")]
        save = " --save" if cluster == "slurm" and page.view.state is State.RUNNING else ""
        found += [(f"cancel{save} {job}", "stop it, with a checkpoint" if save or cluster != "slurm" else "stop it")]
    else:
        found += [(f"logs {job}", "what it printed")]
        if page.view.state in (State.FAILED, State.UNKNOWN):
            found += [(f"logs --err {job}", "what it printed on standard error")]
    if page.checkpoints and not page.view.goes_on:
        reached = page.checkpoints[-1].step
        more = "" if reached < page.record.steps_total else f" --steps {2 * page.record.steps_total}"
        found += [(f"resume {job}{more}", f"continue from step {number(reached)}, as a new job")]
    if not page.view.goes_on:
        found += [(f"rerun {job}", "the same again from its beginning, with its config and code")]
    if page.checkpoints:
        found += [(f"eval {job} --episodes 20 --video {job}.mp4", "play with its agent")]
    if page.evaluations and page.record.compare_to:
        found += [(f"compare {job} {page.record.compare_to}", "is it better?")]
    if page.evaluations or (s is not None and (s.step or 0) > 0):
        found += [(f"doctor {job}", "does it learn? why not?")]
    if page.tracking is not None:
        found += [(f"ui {job}", "its curves in MLflow")]
    found += [(f'note {job} "…"', "add your words")]
    if not page.view.goes_on and (page.entry is None or page.entry.verdict is None):
        found += [(f'verdict {job} good "because …"', "or bad, unclear: what it is worth")]
    return [(f"tdmpc-lab {words}", what) for words, what in found]


def array_commands(array: str, views: Sequence[JobView]) -> list[tuple[str, str]]:
    """What can be done with an array now."""
    going = [view for view in views if view.goes_on]
    tried = [view for view in views if not view.goes_on and view.state is not State.COMPLETED]
    found = [(f"status {array}{' --watch' if going else ''}", "how its jobs are doing")]
    if going:
        found += [(f"wait {array}", "to their end"), (f"cancel {array}", "stop those that wait or run")]
    if any(view.status is not None and view.status.latest_eval is not None for view in views):
        found += [(f"compare {array}", "which of its points is better?")]
    found += [(f"show {view.id}", f"{view.state.value}: why?") for view in tried[:3]]
    found += [(f"note {array.partition('_')[0]}", "its note")]
    return [(f"tdmpc-lab {words}", what) for words, what in found]


@contextlib.contextmanager
def _told(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except (RecordError, OSError) as error:
        problems.append(one_line(str(error)))


def _hardware(event: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: event.get(key)
        for key in ("device", "gpu", "threads", "torch", "replay", "precision")
        if event.get(key) is not None
    }


def _run(event: Mapping[str, Any]) -> dict[str, Any]:
    return {key: event.get(key) for key in ("run_id", "experiment_id", "store")}


def _checkpoints(paths: JobPaths) -> list[Checkpoint]:
    found = []
    for path in paths.checkpoints.glob("step_*.pt"):
        digits = path.stem.removeprefix("step_")
        with contextlib.suppress(FileNotFoundError):  # the job has pruned it meanwhile
            if digits.isdecimal():
                found.append(Checkpoint(int(digits), path.stat().st_size, path))
    return sorted(found, key=lambda checkpoint: checkpoint.step)
