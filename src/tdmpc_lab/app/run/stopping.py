"""What a stop means for a job: over for good, or to continue when the scheduler starts it again.

SLURM sends USR2 before the time limit, and on clusters set up so before a preemption. It sends TERM, and soon
KILL, for a preemption, a requeue by hand, a cancellation and the limit itself alike: which one it was is known
to SLURM, and to the command line if it asked for the end.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import FrameType
from typing import Any

from tdmpc_lab.config.schema import SlurmConfig
from tdmpc_lab.jobs.events import cancelled_since
from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.launch.sbatch import CANCEL_CODE, REQUEUE_CODE, warning_s
from tdmpc_lab.text import parse_time
from tdmpc_lab.training.stop import StopFlag

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
TERMINATED_CODE = 128 + signal.SIGTERM
_EARLY_S = 60  # SLURM may send a signal that much earlier than asked for
TIME_LIMIT = "time limit"
ASKED_BEFORE = timedelta(minutes=10)
"""A cancellation reaches a job within seconds; of an older request the signal is not the answer, but a preemption's."""


@dataclass(frozen=True)
class Ending:
    """How an attempt that was stopped ends."""

    event: str
    """`stopped`, `timeout` (both for good) or `preempted`."""
    fields: Mapping[str, Any]
    exit_code: int | None
    """Of the job's process; None to return as usual."""


@contextlib.contextmanager
def signals_to(stop: StopFlag) -> Iterator[None]:
    """Within, these signals set the stop flag instead of ending the process; restored after.

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


def ending(
    reason: str,
    record: JobRecord,
    slurm: SlurmConfig,
    events: Sequence[Mapping[str, Any]],
    requests: Sequence[dict[str, Any]],
    now: datetime,
    script_start: datetime | None = None,
) -> Ending:
    """What follows from a stop for `reason`, the name of a signal.

    `events` are the job's, this attempt's last; `script_start` is when its batch script began, where that is known:
    SLURM counts the time limit from there, and `setup` lines and a container may take long.
    """
    if record.cluster != "slurm":
        return Ending("stopped", {"reason": reason}, None)
    started = _started(events)
    lately = max(moment for moment in (started, now - ASKED_BEFORE) if moment is not None)
    by = cancelled_since(requests, lately)
    if reason == "SIGUSR1" or (reason != "SIGUSR2" and by is not None):
        return Ending("stopped", {"reason": f"cancelled by {by}" if by else reason}, CANCEL_CODE)
    if reason != "SIGUSR2":
        return Ending("preempted", {"signal": reason, "why": "stopped by SLURM"}, TERMINATED_CODE)
    if not _near_limit(slurm, script_start or started, now):
        return Ending("preempted", {"signal": reason, "why": "preemption"}, REQUEUE_CODE)
    used = sum(e.get("event") == "preempted" and e.get("why") == TIME_LIMIT for e in events)
    if used < slurm.max_requeues:
        return Ending("preempted", {"signal": reason, "why": TIME_LIMIT}, REQUEUE_CODE)
    times = "once" if used == 0 else f"{used + 1} times"
    text = f"it reached its time limit {times} (slurm.max_requeues: {slurm.max_requeues}); continue with: "
    return Ending("timeout", {"reason": f"{text}tdmpc-lab resume {record.id}"}, 1)


def _started(events: Sequence[Mapping[str, Any]]) -> datetime | None:
    times = [parse_time(event.get("time")) for event in events if event.get("event") == "started"]
    return times[-1] if times else None


def _near_limit(slurm: SlurmConfig, started: datetime | None, now: datetime) -> bool:
    """Whether USR2 came because of the time limit: it comes a fixed time before, or somewhat earlier."""
    early = timedelta(seconds=warning_s(slurm) + _EARLY_S)
    return started is None or now - started >= slurm.time - early - timedelta(seconds=_EARLY_S)
