"""What happened to a job and what was asked of it, one JSON object a line.

`events.jsonl` is written by the job itself, `requests.jsonl` by the command line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

from tdmpc_lab.errors import RecordError
from tdmpc_lab.files import Guard, append_jsonl, decode_jsonl, read_jsonl, read_whole
from tdmpc_lab.jobs.paths import JobPaths
from tdmpc_lab.jobs.record import start_words
from tdmpc_lab.sharing import user_name
from tdmpc_lab.text import count, parse_time

OUTCOMES = frozenset({"finished", "failed", "stopped", "timeout"})
"""The events that end an attempt for good. `preempted` does not: the scheduler starts the job again."""


WITHDRAWN = "cancel withdrawn"
"""The request with which an earlier `cancel` is taken back: the scheduler could not be told."""


def _now() -> datetime:
    return datetime.now().astimezone()


class EventLog:
    """Appends events. The kinds and their fields:

    | event | fields |
    | --- | --- |
    | `started` | host, pid, process (its boot and beginning), attempt, job, device, gpu, python, torch, replay |
    | `checkpoint` | step, file, held_s (training waited), write_s (in the background), bytes |
    | `resumed` | step, attempt |
    | `preempted` | signal, why, step, attempt: stopped to continue when the scheduler starts it again |
    | `finished` | step |
    | `failed` | cause (one line), why (its kind, see `jobs.state.Why`), error, traceback, step |
    | `stopped` | reason, step |
    | `timeout` | reason, step: the time limit, and it is not to be started again |
    | `tracking` | run_id, experiment_id, store |
    | `warning` | message |
    | `episode_dropped` | why, and where |
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], datetime] = _now,
        guard: Guard = nullcontext,
    ) -> None:
        self.path = path
        self._clock = clock
        self._guard = guard

    def append(self, kind: str, /, **fields: Any) -> dict[str, Any]:
        """Write one event with the time in ISO 8601; the row as written is returned.

        `guard()` is entered around the write. Raises what it raises, ValueError for a field called `time` or
        `event`, TypeError for what JSON can't hold, OSError when writing fails.
        """
        if taken := {"time", "event"} & fields.keys():
            raise ValueError(f"the log itself writes {' and '.join(sorted(taken))}")
        row = {"time": self._clock().isoformat(timespec="milliseconds"), "event": kind, **fields}
        with self._guard():
            append_jsonl(self.path, row)
        return row


def read_events(path: Path) -> list[dict[str, Any]]:
    """All whole events in the order written; none when the file is missing. Raises RecordError."""
    rows, _ = read_jsonl(path)
    return rows


def read_brief(path: Path | str) -> list[dict[str, Any]]:
    """As `read_events`, without the checkpoints that another checkpoint follows: those are most of a long job's
    events, and the last one tells all that a status needs. Raises RecordError.
    """
    try:
        data = read_whole(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RecordError(f"{path}: can't be read: {error.strerror}") from error
    whole = data[: data.rfind(b"\n") + 1]
    return decode_jsonl(path, _PASSED_CHECKPOINT.sub(b"\n", whole))


def seems_over(path: Path | str) -> bool:
    """Whether an outcome stands behind the last start, told without decoding the events: a quick look at many jobs.

    False says only that it is not that plain. Raises OSError but for a file that is not there.
    """
    try:
        data = read_whole(path)
    except FileNotFoundError:
        return False
    start = data.rfind(b'"event":"started"')
    attempts = _ATTEMPT.findall(data, data.rfind(b"\n", 0, max(start, 0)) + 1)
    # An attempt that was written by another one than the last to start came too late to count.
    return _OUTCOME.search(data, max(start, 0)) is not None and len(set(attempts)) <= 1


_OUTCOME = re.compile(rb'"event":"(?:%s)"[^\n]*\n' % "|".join(sorted(OUTCOMES)).encode())
_ATTEMPT = re.compile(rb'"attempt":(\d+)')
# Emptied, not removed: the lines keep their numbers, for error messages.
_PASSED_CHECKPOINT = re.compile(
    rb'^\{"time":"[^"\n]*","event":"checkpoint"[^\n]*\n(?=\{"time":"[^"\n]*","event":"checkpoint")', re.MULTILINE
)


def event_text(kind: str, fields: Mapping[str, Any]) -> str | None:
    """An event in words for a user who watches; None for those that say nothing to them."""
    say = _EVENT_TEXTS.get(kind)
    return None if say is None else say(fields)


def _phase_text(fields: Mapping[str, Any]) -> str:
    changes = f": {', '.join(fields['changes'])}" if fields["changes"] else ""
    return f"step {fields['step']:,}: phase {fields['phase']} begins{changes}"


_EVENT_TEXTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "warm_up": lambda e: f"step {e['step']:,}: learning from the seed steps ({count(e['updates'], 'update')})",
    "start_from": lambda e: (
        f"starts from {start_words(e)}: "
        + ("optimizers and running scale too" if e["optimizers"] else "optimizers and running scale begin fresh")
        + "; the replay is empty"
    ),
    "resumed": lambda e: f"continuing from step {e['step']:,} (attempt {e['attempt']})",
    "checkpoint": lambda e: f"checkpoint {e['file']}",
    "phase": _phase_text,
    "video": lambda e: f"video {e['file']}: {e['of']}",
    "self_play_copy": lambda e: f"step {e['step']:,}: copy {e['copy']} of the agent joins its pool of opponents",
    "episode_dropped": lambda e: (
        f"environment {e['env']}: its running episode did not come out the same again and was dropped"
    ),
    "warning": lambda e: str(e["message"]),
    "precision": lambda e: str(e["message"]),
}


def ask(paths: JobPaths, request: str, **fields: Any) -> dict[str, Any]:
    """Put a request on file, with time and person: `cancel` (save), `resume` (job). Raises OSError."""
    now = datetime.now().astimezone().isoformat(timespec="milliseconds")
    row = {"time": now, "request": request, "by": person(), **fields}
    append_jsonl(paths.requests, row)
    return row


def person() -> str:
    """Who uses this process: the login name, else the user's number. Variables (USER) may tell of somebody else."""
    return user_name(os.getuid())


def read_requests(paths: JobPaths) -> list[dict[str, Any]]:
    """All requests in the order made. Raises RecordError."""
    rows, _ = read_jsonl(paths.requests)
    return rows


def cancelled_since(requests: Sequence[dict[str, Any]], since: datetime | None) -> str | None:
    """Who asked for the job's end at or after `since` (None: ever); None when nobody did, or took it back."""
    for row in reversed(requests):
        if row.get("request") == WITHDRAWN:
            return None
        moment = parse_time(row.get("time"))
        if row.get("request") == "cancel" and (since is None or moment is None or moment >= since):
            return str(row.get("by") or "somebody")
    return None
