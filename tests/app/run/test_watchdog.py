"""An environment that gives no answer: one that can be interrupted, and one that can't."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from tdmpc_lab.app.run.watchdog import SIGNAL, Watchdog
from tdmpc_lab.envs.calls import calling, running_calls
from tdmpc_lab.errors import TrainingError


def test_a_call_that_waits_for_ever_is_interrupted_and_named():
    told: list[str] = []
    before = signal.getsignal(SIGNAL)
    with Watchdog(0.1, told.append, beat_s=0.02, grace_s=60):
        for step in range(20):
            with calling("Slow-v0", step, 3):
                time.sleep(0.03)  # each soon enough, and all together longer than the limit
        with (
            pytest.raises(TrainingError, match=r"'Slow-v0', step 7 of the episode with seed 3: no answer for 0\.1 s"),
            calling("Slow-v0", 7, 3),
        ):
            time.sleep(60)
    assert not told
    assert running_calls() == {}
    assert signal.getsignal(SIGNAL) is before


def test_one_that_catches_everything_is_told_from_the_watchdog_s_thread():
    ended = threading.Event()
    with (
        Watchdog(0.05, lambda text: (told.append(text), ended.set()), beat_s=0.02, grace_s=0.1),
        calling("Deaf-v0", 0, 9),
    ):
        told: list[str] = []
        while not ended.is_set():
            try:
                time.sleep(0.5)
            except TrainingError:  # as a library with a bare except would
                continue
    assert len(told) == 1
    assert "'Deaf-v0', the reset of the episode with seed 9" in told[0]


def test_without_a_limit_nothing_is_watched():
    with Watchdog(0, pytest.fail, beat_s=0.01), calling("Slow-v0", 1, 1):
        time.sleep(0.1)
