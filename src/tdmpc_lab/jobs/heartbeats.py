"""The last heartbeat of each attempt of a job, as its file in `.attempts/` has it; `launch.attempts` writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from tdmpc_lab.text import parse_time

LastHeartbeat = Callable[[int], datetime | None]
"""When an attempt, by its number, sent its last heartbeat; None where that is not known."""


def no_heartbeats(_attempt: int) -> datetime | None:
    """For jobs of which no signs are at hand."""
    return None


def heartbeat_file(folder: Path, attempt: int) -> Path:
    """The file of an attempt's signs, in a job's `.attempts/`."""
    return folder / f"{attempt:06d}.json"


def last_heartbeat(folder: Path, attempt: int) -> datetime | None:
    """When the attempt sent its last heartbeat, by the clock of its node.

    None where it gave none, its file can't be read, or an older version wrote it. The file's own time is not taken:
    a project that is copied has others.
    """
    try:
        data = json.loads(heartbeat_file(folder, attempt).read_bytes())
    except (OSError, ValueError):
        return None
    return parse_time(data.get("time")) if isinstance(data, dict) else None
