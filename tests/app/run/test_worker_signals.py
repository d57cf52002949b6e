from __future__ import annotations

import os
import signal

import pytest

from tdmpc_lab.app.run.stopping import STOP_SIGNALS, signals_to
from tdmpc_lab.training.stop import StopFlag


def test_first_a_request_then_an_interrupt_and_all_as_before_after():
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    stop = StopFlag()
    with signals_to(stop):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before
    with signals_to(again := StopFlag()):
        os.kill(os.getpid(), signal.SIGINT)
    assert again.reason == "SIGINT"
