"""The state of a job, worked out from its files and what the scheduler says; it is stored nowhere.

Also here: how a job stands now, from its files and what the scheduler says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

from tdmpc_lab.jobs.events import OUTCOMES, read_events
from tdmpc_lab.jobs.heartbeats import LastHeartbeat, last_heartbeat, no_heartbeats
from tdmpc_lab.jobs.metrics import as_float, as_int, last_step, latest_rows
from tdmpc_lab.jobs.paths import JobPaths
from tdmpc_lab.jobs.queued import QueueLine
from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.text import count, duration, number, one_line, parse_time, shorten

Event = Mapping[str, Any]
Row = Mapping[str, Any]
T = TypeVar("T")
_CAUSE_WIDTH = 300
FAREWELLS = OUTCOMES | {"preempted"}
"""The events with which an attempt says that it ends."""


class Why(StrEnum):
    """Kinds of causes for which something can be done. The event `failed` has one as its `why`."""

    GPU_MEMORY = "gpu memory"
    HOST_MEMORY = "host memory"
    ALLOCATION = "allocation"
    """More memory than the job had asked SLURM for."""
    DISK = "disk"
    NODE = "node"
    KILLED = "killed"
    """From outside, without a word."""


_WHY_OF_ERROR = {"OutOfMemoryError": Why.GPU_MEMORY, "MemoryError": Why.HOST_MEMORY}


class State(StrEnum):
    """What a job is doing, or how it ended."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMEOUT = "TIMEOUT"
    UNKNOWN = "UNKNOWN"

    @property
    def ended(self) -> bool:
        """Whether the outcome is known. UNKNOWN is not an outcome."""
        return self in (State.COMPLETED, State.FAILED, State.CANCELLED, State.TIMEOUT)


@dataclass(frozen=True)
class SchedulerState:
    """What the scheduler (SLURM, or the process table of this machine) says about a job."""

    state: Literal["PENDING", "RUNNING", "GONE", "UNREACHABLE"]
    reason: str = ""
    """PENDING: what it waits for. UNREACHABLE: why. GONE: what is known, beginning with SLURM's own word for
    the end of the job where there is one (`TIMEOUT`, `CANCELLED by 1000`, `OUT_OF_MEMORY`)."""
    line: QueueLine | None = field(default=None, compare=False)
    """PENDING, RUNNING in SLURM: how its queue shows the job."""
    heartbeat_s: float | None = field(default=None, compare=False)
    """Seconds since the last heartbeat of the job's last attempt; infinite where it is known to have ended, None where
    there never was one. Looked at only where the scheduler knows of no end: GONE, UNREACHABLE."""


SILENT_S = 60.0
"""A process whose last heartbeat is older than this may be dead: network file systems keep an old list of a folder's
files almost that long."""


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """State of a job at one moment."""

    state: State
    cause: str | None = None
    """One line: why it waits, failed, was stopped or is not known."""
    attempt: int = 0
    """Number of the last attempt; 0 before the first."""
    node: str | None = None
    """Host of the last attempt."""
    pid: int | None = None
    """Process of the last attempt, on `node`."""
    started_at: datetime | None = None
    """When the last attempt began."""
    ended_at: datetime | None = None
    """When the outcome was written."""
    why: Why | None = None
    """Of which kind the cause is, where that tells what to do about it."""
    names_command: bool = False
    """Whether the cause names the command that continues the job."""
    step: int | None = None
    """Environment steps done."""
    steps: int
    """Environment steps to do."""
    steps_per_s: float | None = None
    """Speed at the last rows."""
    eta_s: float | None = None
    """Seconds left at this speed, while running."""
    elapsed_s: float | None = None
    """Seconds spent in all attempts together, waiting between them left out."""
    latest_return: float | None = None
    """Return of the last training episode."""
    latest_eval: dict[str, Any] | None = None
    """The last evaluation's row, if it is among the rows given."""
    run_id: str | None = None
    """The MLflow run."""


class _Seen(NamedTuple):
    """A state, and what is said of it; see `JobStatus`."""

    state: State
    cause: str | None = None
    why: Why | None = None
    names_command: bool = False


_EVENTS_WITH_STEP = ("resumed", "warm_up", "checkpoint", "preempted")  # told at the step that was just done
# How SLURM says a job ended → the state and the cause.
_SLURM_ENDS = {
    "TIMEOUT": _Seen(State.TIMEOUT, "SLURM ended it at its time limit"),
    "DEADLINE": _Seen(State.TIMEOUT, "SLURM ended it at its deadline"),
    "CANCELLED": _Seen(State.CANCELLED, "cancelled in SLURM"),
    "PREEMPTED": _Seen(State.CANCELLED, "a job of a higher partition took its place, and SLURM did not start it again"),
    "OUT_OF_MEMORY": _Seen(State.FAILED, "SLURM ended it: it used more host memory than it asked for", Why.ALLOCATION),
    "NODE_FAIL": _Seen(State.FAILED, "its node failed", Why.NODE),
    "BOOT_FAIL": _Seen(State.FAILED, "its node did not come up", Why.NODE),
    "FAILED": _Seen(State.FAILED, "SLURM says it failed and it left no outcome"),
}
END_WORDS = frozenset({*_SLURM_ENDS, "COMPLETED"})
"""SLURM's words for a job that is over. No other word says so: newer versions have more of them."""
_LOST_NODE = frozenset({"NODE_FAIL"})  # SLURM does not see the node: what runs there may run on


def derive_status(
    record: JobRecord,
    events: Sequence[Event],
    last_rows: Sequence[Row],
    now: datetime,
    scheduler: SchedulerState | None,
    last_heartbeat: LastHeartbeat = no_heartbeats,
) -> JobStatus:
    """The status of a job; pure, and at ease with events and rows that lack fields.

    `last_rows` is the tail of the metrics. An outcome on file with no later start wins; else the scheduler
    is believed where it says that the job waits, runs or has ended. A job of which it knows no end is RUNNING while its
    process gives heartbeats, and then UNKNOWN with the cause in words. Where the scheduler can't be reached, the last
    known state is given and the cause says so; without a heartbeat for long, UNKNOWN. An attempt that was killed ran
    until its `last_heartbeat` of life.
    """
    attempts = split_attempts(events)
    current = attempts[-1]
    start = current[0] if current and current[0].get("event") == "started" else None
    attempt = _attempt_number(start, len(attempts))
    outcome = _outcome(current, attempt)
    if outcome is not None:
        state, cause, why, names_command = _from_outcome(record, outcome)
    else:
        state, cause, why, names_command = _from_scheduler(record, start, current, scheduler)
    step = _step(outcome, current, last_rows, attempt)
    rate = _rate(last_rows, attempt)
    running = state is State.RUNNING
    if running and cause is None:
        cause = _learning_from_seed_steps(attempts, last_rows)
    here = start if start is not None and state is not State.PENDING else {}
    return JobStatus(
        state=state,
        cause=shorten(cause, _CAUSE_WIDTH) if cause else None,
        why=why,
        names_command=names_command,
        attempt=attempt,
        node=_text(here.get("host")) or None,
        pid=as_int(here.get("pid")),
        started_at=parse_time(start.get("time")) if start is not None else None,
        ended_at=parse_time(outcome.get("time")) if outcome is not None else None,
        step=step,
        steps=record.steps_total,
        steps_per_s=rate,
        eta_s=max(0, record.steps_total - (step or 0)) / rate if running and rate is not None else None,
        elapsed_s=_elapsed(attempts, outcome, now if running else None, last_heartbeat),
        latest_return=_first(as_float(r.get("return")) for r in reversed(last_rows) if r.get("split") == "train"),
        latest_eval=_first(dict(row) for row in reversed(last_rows) if row.get("split") == "eval"),
        run_id=_first(_text(e.get("run_id")) or None for e in reversed(events) if e.get("event") == "tracking"),
    )


def split_attempts(events: Sequence[Event]) -> list[list[Event]]:
    """The events of each attempt; what stands before the first start is with no attempt, or alone."""
    attempts: list[list[Event]] = [[]]
    for event in events:
        if event.get("event") == "started" and attempts[-1]:
            attempts.append([])
        attempts[-1].append(event)
    return attempts


def attempt_end(attempt: Sequence[Event], counted: int, last_heartbeat: LastHeartbeat) -> datetime | None:
    """When an attempt came to its end, as far as is known: what it said last, or, where that was no farewell, its last
    heartbeat. `counted` is its number where its start does not tell that. None without any time."""
    own = [event for event in attempt if event.get("event") != "tracking"]  # a sync may write that
    said = _first(parse_time(event.get("time")) for event in reversed(own))
    if any(event.get("event") in FAREWELLS for event in own):
        return said
    sign = last_heartbeat(_attempt_number(own[0] if own else None, counted))
    return max((moment for moment in (said, sign) if moment is not None), default=None)


def _attempt_number(start: Event | None, counted: int) -> int:
    if start is None:
        return 0
    stated = as_int(start.get("attempt"))
    return counted if stated is None else stated


def _outcome(current: Sequence[Event], attempt: int) -> Event | None:
    """The last outcome of the current attempt; one that names an earlier attempt came too late to count."""
    for event in reversed(current):
        stated = as_int(event.get("attempt"))
        if event.get("event") in OUTCOMES and (stated is None or stated >= attempt):
            return event
    return None


def _from_outcome(record: JobRecord, outcome: Event) -> _Seen:
    kind = outcome["event"]
    if kind == "finished":
        return _Seen(State.COMPLETED)
    if kind == "failed":
        error, stated = _text(outcome.get("error")), _text(outcome.get("why"))
        cause = _text(outcome.get("cause")) or error or f"it gave no cause; log: {_log(record)}"
        why = Why(stated) if stated in list(Why) else _WHY_OF_ERROR.get(error)  # the latter: as before there were codes
        return _Seen(State.FAILED, cause, why, names_command=why is Why.DISK)
    reason = _text(outcome.get("reason")) or "no reason given"
    if kind == "timeout":  # which the job only writes where it is not started again: its reason says how to
        return _Seen(State.TIMEOUT, reason, names_command=True)
    return _Seen(State.CANCELLED, f"stopped by {reason}" if reason.startswith("SIG") else reason)


def _from_scheduler(
    record: JobRecord, start: Event | None, current: Sequence[Event], scheduler: SchedulerState | None
) -> _Seen:
    if scheduler is None:
        return _Seen(State.UNKNOWN, f"{_vanished(start, 'not known to the scheduler')}; log: {_log(record)}")
    reason = shorten(scheduler.reason, _CAUSE_WIDTH // 2)
    if scheduler.state == "PENDING":
        return _Seen(State.PENDING, reason or _waits_for(record))
    if scheduler.state == "RUNNING":
        return _Seen(State.RUNNING, None if start is not None else "starting, nothing reported yet")
    if scheduler.state == "UNREACHABLE":
        return _unreachable(record, start, current, scheduler, reason)
    return _gone(record, start, current, scheduler, reason)


def _beats(scheduler: SchedulerState) -> bool:
    return scheduler.heartbeat_s is not None and scheduler.heartbeat_s <= SILENT_S


def _unreachable(
    record: JobRecord, start: Event | None, current: Sequence[Event], scheduler: SchedulerState, reason: str
) -> _Seen:
    away = f"the scheduler can't be reached{f' ({reason})' if reason else ''}"
    if start is None or _last_preemption(current) is not None:
        return _Seen(State.PENDING, f"{away}: this is what was last known")
    if scheduler.heartbeat_s is not None and not _beats(scheduler):
        ended = math.isinf(scheduler.heartbeat_s)
        silent = "has ended" if ended else f"has sent no heartbeat for {duration(scheduler.heartbeat_s)}"
        return _Seen(State.UNKNOWN, f"{away}, and its process {silent}; log: {_log(record)}")
    return _Seen(State.RUNNING, f"{away}: this is what was last known")


def _gone(
    record: JobRecord, start: Event | None, current: Sequence[Event], scheduler: SchedulerState, reason: str
) -> _Seen:
    word, _, more = reason.partition(" ")
    word = word.rstrip("+")
    known_end = record.cluster == "slurm" and word in END_WORDS
    if _beats(scheduler) and (not known_end or word in _LOST_NODE):
        says = f" ({reason})" if reason else ""
        return _Seen(State.RUNNING, f"the scheduler does not say that it runs{says}, but its process sends heartbeats")
    if known_end and word in _SLURM_ENDS:
        return _slurm_end(record, word, more.strip(), current)
    cause = _vanished(start, "gone")
    preemption = _last_preemption(current)
    if preemption is not None:
        at = as_int(preemption.get("step"))
        cause += f" after {_text(preemption.get('signal')) or 'a preemption'}"
        cause += f" at step {number(at)}" if at is not None else ""
    return _Seen(State.UNKNOWN, f"{cause}{f' ({reason})' if reason else ''}; log: {_log(record)}")


def _slurm_end(record: JobRecord, word: str, more: str, current: Sequence[Event]) -> _Seen:
    """What SLURM's word for the end means; `more` is who cancelled it, or its exit code."""
    state, cause, why, _ = _SLURM_ENDS[word]
    preemption = _last_preemption(current)
    if word == "FAILED" and preemption is not None and preemption.get("signal") == "SIGUSR2":
        state = State.TIMEOUT if preemption.get("why") == "time limit" else State.CANCELLED
        cause = f"it saved and stopped ({_text(preemption.get('why'))}), and SLURM did not start it again"
    elif more.startswith(("by ", "(")):
        cause = f"{cause} {more}"
    saved = any(event.get("event") in ("checkpoint", "resumed") for event in current)
    remedy = f"; continue with: tdmpc-lab resume {record.id}" if saved and word != "CANCELLED" else ""
    return _Seen(state, f"{cause}{remedy}; log: {_log(record)}", why, names_command=bool(remedy))


def _vanished(start: Event | None, what: str) -> str:
    """Says what was looked for and not found, and claims nothing about how it ended."""
    if start is None:
        return f"its process is {what} and never reported a start"
    pid, host = as_int(start.get("pid")), _text(start.get("host"))
    process = f"its process{'' if pid is None else f' {pid}'}{f' on {host}' if host else ''}"
    return f"{process} is {what} and left no outcome"


def _waits_for(record: JobRecord) -> str:
    if record.cluster == "slurm":
        return "waiting in SLURM's queue"
    places = "" if record.max_local is None else f" ({record.max_local} at a time)"
    return f"waiting for a free place{places}"


def _last_preemption(current: Sequence[Event]) -> Event | None:
    return _first(event for event in reversed(current) if event.get("event") == "preempted")


def _log(record: JobRecord) -> str:
    return f"jobs/{record.id}/log.err"


def _step(outcome: Event | None, current: Sequence[Event], rows: Sequence[Row], attempt: int) -> int | None:
    """Steps done: what the outcome says, else the farthest sign of the current attempt, else of any."""
    if outcome is not None and (stated := as_int(outcome.get("step"))) is not None:
        return stated
    signs = [last_step(row for row in rows if _is_of(row, attempt))]
    signs += [as_int(e.get("step")) for e in current if e.get("event") in _EVENTS_WITH_STEP]
    known = [step for step in signs if step is not None]
    return max(known) if known else last_step(rows)


def _is_of(row: Row, attempt: int) -> bool:
    stated = as_int(row.get("attempt"))
    return stated is None or stated == attempt


def _learning_from_seed_steps(attempts: Sequence[Sequence[Event]], rows: Sequence[Row]) -> str | None:
    """What a job does that stands still because it learns from its seed steps; None for one that does not.

    The updates begin with the event `warm_up`. They are over when the job has gone a step further, has a row with
    updates, or has settled that step with a checkpoint. A checkpoint before a preemption may have come between two of
    them.
    """
    begun = None
    for attempt in attempts:
        for event, after in zip(attempt, [*attempt[1:], {}], strict=True):
            kind, at = event.get("event"), as_int(event.get("step"))
            if kind == "warm_up":
                begun = event
            elif begun is None or at is None or kind not in _EVENTS_WITH_STEP:
                continue
            elif at != as_int(begun.get("step")) or (kind == "checkpoint" and after.get("event") != "preempted"):
                begun = None
    step = None if begun is None else as_int(begun.get("step"))
    if begun is None or step is None:
        return None
    for row in rows:
        at = as_int(row.get("step"))
        if at is not None and (at > step or (at == step and (as_int(row.get("updates")) or 0) > 0)):
            return None
    updates = as_int(begun.get("updates"))
    many = "" if updates is None else f": {count(updates, 'update')}"
    return f"learning from the seed steps{many}"


def _rate(rows: Sequence[Row], attempt: int) -> float | None:
    """Steps per second: what the attempt's last rows say themselves, else what their steps and times give.

    Rows before one with updates are no measure: random steps cost next to nothing. Nor is the time up to the last row
    of a step, or up to an evaluation: it went into updates from the seed steps, evaluations and checkpoints.
    """
    stated = _first(as_float(row.get("steps_per_s")) for row in reversed(rows) if _is_of(row, attempt))
    if stated is not None:
        return stated if stated > 0 else None
    learning = next((n for n, row in enumerate(rows) if (as_int(row.get("updates")) or 0) > 0), len(rows))
    steps, seconds = 0, 0.0
    before: tuple[int, float] | None = None
    for row in rows[learning:]:
        step, wall = as_int(row.get("step")), as_float(row.get("wall_s"))
        if not _is_of(row, attempt) or step is None or wall is None:
            continue
        if before is not None and step > before[0] and row.get("split") != "eval":
            steps += step - before[0]
            seconds += wall - before[1]
        before = step, wall
    return steps / seconds if steps > 0 and seconds > 0 else None


def _elapsed(
    attempts: Sequence[Sequence[Event]], outcome: Event | None, now: datetime | None, last_heartbeat: LastHeartbeat
) -> float | None:
    """Seconds from the start of each attempt to its end: the outcome, now, or its last heartbeat.

    Clocks of two machines may disagree; no attempt counts less than nothing.
    """
    spans = []
    for index, attempt in enumerate(attempts):
        begin = parse_time(attempt[0].get("time")) if attempt and attempt[0].get("event") == "started" else None
        if begin is None:
            continue
        end = attempt_end(attempt, index + 1, last_heartbeat) or begin
        if index == len(attempts) - 1:
            if outcome is not None:
                end = parse_time(outcome.get("time")) or end
            elif now is not None:
                end = now.astimezone()
        spans.append(max(0.0, (end - begin).total_seconds()))
    return sum(spans) if spans else None


def _text(value: object) -> str:
    if not isinstance(value, str):
        return ""
    return value.strip() if value.isprintable() else one_line(value)


def _first(values: Iterable[T | None]) -> T | None:
    return next((value for value in values if value is not None), None)


def traceback_of(events: Sequence[Mapping[str, Any]]) -> str | None:
    """The traceback of the job's last failure, if there was one."""
    failures = [event for event in events if event.get("event") == "failed"]
    return str(failures[-1].get("traceback") or "") or None if failures else None


def status_of(
    paths: JobPaths,
    record: JobRecord,
    scheduler: SchedulerState | None,
    events: list[dict[str, Any]] | None = None,
    rows: list[dict[str, Any]] | None = None,
) -> JobStatus:
    """The job's status now, from its files (`events`, and `rows` of its metrics, where they were read already) and
    what the scheduler says. Raises RecordError.
    """
    events = read_events(paths.events) if events is None else events
    rows = latest_rows(paths) if rows is None else rows
    now = datetime.now().astimezone()
    return derive_status(record, events, rows, now, scheduler, partial(last_heartbeat, paths.attempts))
