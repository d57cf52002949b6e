"""Time spans as SLURM writes them: `HH:MM:SS` and `D-HH:MM:SS`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

_DURATION = re.compile(r"(?:([0-9]{1,5})-)?([0-9]{1,6}):([0-5][0-9]):([0-5][0-9])", re.ASCII)
_MINUTE = timedelta(minutes=1)


def parse_duration(text: str) -> timedelta:
    """Read `HH:MM:SS` (any number of hours) or `D-HH:MM:SS` (hours up to 23).

    Raises ValueError for any other form and for zero.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"not HH:MM:SS or D-HH:MM:SS: {text!r}")
    days, hours, minutes, seconds = (int(part) if part else 0 for part in match.groups())
    if match[1] and hours > 23:
        raise ValueError(f"more than 23 hours beside days: {text!r}")
    duration = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    if not duration:
        raise ValueError("a duration of zero")
    return duration


def format_duration(duration: timedelta) -> str:
    """Write whole seconds as `HH:MM:SS`, from a day on as `D-HH:MM:SS`; the inverse of `parse_duration`."""
    minutes, seconds = divmod(round(duration.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours:02d}:{minutes:02d}:{seconds:02d}"
    return f"{days}-{clock}" if days else clock


def duration_hint(found: Any) -> str:
    """How the duration that was probably meant is written, "" when nothing can be guessed.

    A bare number and `1:30` are refused because SLURM takes them as minutes and people as hours.
    """
    if isinstance(found, int) and not isinstance(found, bool) and 0 < found < 100_000:
        return f"minutes or hours? write {_short(found * _MINUTE)} for minutes, {found}:00:00 for hours"
    if isinstance(found, str) and (match := re.fullmatch(r"([0-9]{1,4}):([0-9]{2})", found, re.ASCII)):
        return f"minutes or hours? write {found}:00 for hours, 0:{match[1]:0>2}:{match[2]} for minutes"
    return ""


def _short(duration: timedelta) -> str:
    return format_duration(duration).removeprefix("0")


def checked_duration(value: Any) -> Any:
    """Read a duration that may be read already. Raises ValueError like `parse_duration`."""
    return parse_duration(value) if isinstance(value, str) else value
