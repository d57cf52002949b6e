"""Ends a job whose environment gives no answer: with an error that names it, instead of hanging until its time limit.

The training's own thread is interrupted first, by a signal whose handler raises there: that ends a wait and a loop in
Python. Where it does not (a library that catches everything, or never comes back to Python), the job's end is put on
file from here and the process ends. A library that holds on to Python's lock stops this thread too: then only the
scheduler's time limit is left.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from tdmpc_lab.envs.calls import Call, running_calls
from tdmpc_lab.errors import TrainingError

SIGNAL = signal.SIGVTALRM
BEAT_S = 1.0
GRACE_S = 30.0  # for the training's thread to come back after it was interrupted


class Watchdog:
    """Watches the calls into environments while it is entered, from the main thread.

    Time is counted in beats of its own: those of a process that is suspended do not count.

    Args:
        limit_s: seconds that one call may take; 0 for no limit.
        on_hang: called, in the watchdog's thread, with what hangs in words when the training can't be interrupted.
    """

    def __init__(
        self,
        limit_s: float,
        on_hang: Callable[[str], None],
        *,
        beat_s: float | None = None,
        grace_s: float | None = None,
    ) -> None:
        self._limit_s, self._on_hang = limit_s, on_hang
        self._beat_s = BEAT_S if beat_s is None else beat_s
        self._grace_s = GRACE_S if grace_s is None else grace_s
        self._over = threading.Event()
        self._told: Call | None = None  # for which the main thread was interrupted
        self._before: Any = None
        self._main = threading.get_ident()
        self._thread = threading.Thread(target=self._live, name="environment-watchdog", daemon=True)

    def __enter__(self) -> Self:
        if self._limit_s > 0:
            if threading.current_thread() is threading.main_thread():
                self._before = signal.signal(SIGNAL, self._interrupted)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._before is not None:
            signal.signal(SIGNAL, self._before)

    def _live(self) -> None:
        seen: dict[int, tuple[Call, float]] = {}  # and for how long
        while not self._over.wait(self._beat_s):
            calls = running_calls()
            seen = {
                thread: (call, seen[thread][1] + self._beat_s if thread in seen and seen[thread][0] is call else 0.0)
                for thread, call in calls.items()
            }
            for thread, (call, waited) in seen.items():
                can_interrupt = thread == self._main and self._before is not None
                if can_interrupt and waited >= self._limit_s and self._told is not call:
                    self._told = call
                    signal.pthread_kill(thread, SIGNAL)
                elif waited >= self._limit_s + (self._grace_s if can_interrupt else 0.0):
                    self._on_hang(self._words(call))
                    return

    def _interrupted(self, _number: int, _frame: FrameType | None) -> None:
        """In the main thread, in the midst of the call, unless it has just come back."""
        call = self._told
        if call is not None and running_calls().get(self._main) is call:
            raise TrainingError(self._words(call))

    def _words(self, call: Call) -> str:
        return (
            f"{call}: no answer for {self._limit_s:g} s; look for what it waits for, or, if it needs that long, raise "
            "train.env_timeout (0: no limit)"
        )
