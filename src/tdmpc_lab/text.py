"""Durations, numbers, times and one-line texts, as notes and tables show them. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

_MINUS = "\N{MINUS SIGN}"
_BLOCKS = "▁▂▃▄▅▆▇█"


def duration(seconds: float | None) -> str:
    """Seconds as `3:12` (m:ss), `3:12:05` (h:mm:ss) or `1-02:03:04` (d-hh:mm:ss, as SLURM writes it).

    Fractions are dropped. What is negative (two machines' clocks) reads `0:00`, what is no number `?`.
    """
    if seconds is None or not math.isfinite(seconds):
        return "?"
    minutes, secs = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}-{hours:02}:{minutes:02}:{secs:02}"
    if hours:
        return f"{hours}:{minutes:02}:{secs:02}"
    return f"{minutes}:{secs:02}"


def number(value: float | None) -> str:
    """A number for reading: `5,000`, `−150.2`, `9.81`, `0.0123`; about three digits that matter.

    Integers keep all their digits. The minus is the typographic one, so this is for prose, not for parsing.
    """
    if value is None:
        return "?"
    size = abs(value)
    if isinstance(size, int):
        text = f"{size:,}"
    elif math.isnan(size):
        text = "?"
    elif math.isinf(size):
        text = "∞"
    elif size >= 1e9 or 0 < size < 1e-3:
        text = f"{size:.3g}"
    elif size >= 10:
        text = f"{size:,.1f}"
    elif size >= 1 or size == 0:
        text = f"{size:.2f}"
    else:
        text = f"{size:.3g}"
    return f"{_MINUS}{text}" if value < 0 else text


def count(amount: int, one: str, many: str = "") -> str:
    """A number of things: `1 job`, `2,000 jobs`; `many` is the plural where it is not `one` with an s."""
    return f"{amount:,} {one if amount == 1 else many or one + 's'}"


def one_line(text: str) -> str:
    """The text on one line: white space of any kind becomes one space, other control characters go."""
    return " ".join("".join(c if c.isprintable() else " " if c.isspace() else "" for c in text).split())


def shorten(text: str, width: int) -> str:
    """The text on one line of at most `width` characters, ending in `…` where something was cut off."""
    line = one_line(text)
    return line if len(line) <= width else line[: max(0, width - 1)].rstrip() + "…"


def sparkline(values: Sequence[float], most: int = 40) -> str:
    """The values as a row of blocks, `▁▃▆█`, lowest to highest; of more than `most` every so many-th.

    What is no finite number is a blank.
    """
    step = max(1.0, (len(values) - 1) / (most - 1))
    shown = [values[round(index * step)] for index in range(min(len(values), most))]
    finite = [value for value in shown if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((value - low) * scale)] if math.isfinite(value) else " " for value in shown)


def parse_time(value: object) -> datetime | None:
    """The moment an ISO 8601 text names, with an offset (a text without one is this machine's local time).

    None for anything else: times come from files that may be torn or written by hand.
    """
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment if moment.tzinfo else moment.astimezone()
    except (ValueError, OverflowError):
        return None


def heading_time(moment: datetime) -> str:
    """A moment as the job log's headings write it: `2026-02-03_09-14-22`."""
    return moment.strftime("%Y-%m-%d_%H-%M-%S")


_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size_text(size: float) -> str:
    """Bytes for reading: `512 B`, `1.4 GiB`."""
    for unit in _UNITS[:-1]:
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {_UNITS[-1]}"
