"""A job as SLURM's queue shows it, and how far a job will get before its time limit."""

from __future__ import annotations

import re
from dataclasses import dataclass

# The short words of squeue's column ST.
SHORT_STATES = {
    "PENDING": "PD", "RUNNING": "R", "COMPLETING": "CG", "CONFIGURING": "CF", "SUSPENDED": "S", "STOPPED": "ST",
    "REQUEUED": "RQ", "REQUEUE_HOLD": "RH", "REQUEUE_FED": "RF", "RESIZING": "RS", "RESV_DEL_HOLD": "RD",
    "SIGNALING": "SI", "SPECIAL_EXIT": "SE", "STAGE_OUT": "SO", "COMPLETED": "CD", "FAILED": "F", "CANCELLED": "CA",
    "TIMEOUT": "TO", "PREEMPTED": "PR", "NODE_FAIL": "NF", "BOOT_FAIL": "BF", "DEADLINE": "DL", "OUT_OF_MEMORY": "OOM",
    "UNKNOWN": "?",
}  # fmt: skip
# What squeue says of a job that waits until somebody lets it go, or for ever: as its state, and as its reason.
_HELD_STATES = ("REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
_HELD_REASONS = (
    "JobHeldUser", "JobHeldAdmin", "JobHoldMaxRequeue", "job requeued in held state", "launch failed requeued held",
    "DependencyNeverSatisfied",
)  # fmt: skip
_SPAN = re.compile(r"(?:([0-9]{1,5})-)?(?:([0-9]{1,6}):)?([0-9]{1,6}):([0-9]{2})", re.ASCII)


@dataclass(frozen=True)
class QueueLine:
    """A job in squeue, in its own words."""

    word: str
    """Its state as SLURM calls it."""
    partition: str
    limit: str
    """Its time limit: `16:00`, `1-00:00:00`, `UNLIMITED`."""
    reason: str
    """Why it waits; `None` for a job that does not."""
    user: str = ""
    used: str = ""
    """Time since the start of this attempt: `3:12:05`."""
    nodes: str = ""
    """Number of nodes."""
    nodelist: str = ""
    begin: str = ""
    """When it started, or is expected to: `2026-02-03T14:20:00`, or `N/A`."""
    comment: str = ""
    folder: str = ""
    """Its working directory."""
    name: str = ""

    @property
    def place(self) -> str:
        """The column NODELIST(REASON)."""
        waits = not self.nodelist and self.reason not in ("", "None", "(null)")
        return f"({self.reason})" if waits else self.nodelist

    @property
    def held(self) -> bool:
        """Whether it does not start by itself, whatever time SLURM names for that: it may be an earlier attempt's."""
        return self.word in _HELD_STATES or self.reason.strip("()") in _HELD_REASONS

    @property
    def left_s(self) -> float | None:
        """Seconds to the time limit; None where there is none."""
        limit, used = span_s(self.limit), span_s(self.used)
        return None if limit is None or used is None else max(0.0, limit - used)


def span_s(text: str) -> float | None:
    """Seconds of a time span as squeue writes it, `[D-][HH:]MM:SS`; None for `UNLIMITED` and the like."""
    match = _SPAN.fullmatch(text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part) if part else 0 for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def share_at_limit(step: int, steps: int, steps_per_s: float, left_s: float) -> float | None:
    """The share of its steps (0 to 1) that a job will have done at its time limit; None when it is done before."""
    reached = (step + steps_per_s * left_s) / steps if steps > 0 else 1.0
    return reached if reached < 1.0 else None
