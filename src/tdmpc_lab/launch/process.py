"""Whether the process that a job said it is still lives on this machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tdmpc_lab.jobs.metrics import as_int
from tdmpc_lab.text import parse_time

_ENDED = ("Z", "X")
_SLACK_S = 5.0  # the clock may have been set between the start of the process and its event


def last_start(events: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The last `started` event."""
    return next((event for event in reversed(events) if event.get("event") == "started"), None)


def is_here(start: Mapping[str, Any]) -> bool:
    """Whether this attempt was started on this machine."""
    return start.get("host") == socket.gethostname()


def live_pid(start: Mapping[str, Any] | None) -> int | None:
    """The process of this attempt if it is on this machine and lives, else None.

    Process ids are used again: one with another `process_mark` is another process. An event without a mark, of an
    older version, is compared by the clock: one that began after the event is another process.
    """
    if start is None or not is_here(start):
        return None
    pid, noted = as_int(start.get("pid")), parse_time(start.get("time"))
    if isinstance(start.get("process"), str):
        return pid if pid is not None and pid > 1 and process_mark(pid) == start["process"] else None
    began = _began(pid) if pid is not None and pid > 1 else None
    if began is None or (noted is not None and began > noted.timestamp() + _SLACK_S):
        return None
    return pid


def process_mark(pid: int) -> str | None:
    """What no other process has, whatever is done to the clock: the boot, and when in it this one began.

    None when there is no such process, or it has ended, or this system does not tell.
    """
    try:
        fields = _fields(pid)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return None if fields[0] in _ENDED else f"{boot} {fields[19]}"


def _fields(pid: int) -> list[str]:
    """What the system says of a process, from its state on. Raises OSError."""
    # The name, second field, is in brackets and may hold anything.
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def _began(pid: int) -> float | None:
    """When a process began, in seconds since 1970; None when there is none, or it has ended (zombie)."""
    try:
        fields = _fields(pid)
        boot = next(x for x in Path("/proc/stat").read_text(encoding="ascii").splitlines() if x.startswith("btime "))
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in _ENDED:
        return None
    return float(boot.split()[1]) + int(fields[19]) / os.sysconf("SC_CLK_TCK")
