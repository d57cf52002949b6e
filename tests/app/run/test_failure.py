"""The cause of a failure in one line, with the frame that raised it."""

from __future__ import annotations

import errno
import json

import pytest

from tdmpc_lab.app.run.failure import cause_of, last_frame
from tdmpc_lab.errors import NonFiniteError, TrainingError


def raised(error: Exception, behind: Exception | None = None) -> Exception:
    try:
        if behind is not None:
            try:
                raise behind
            except Exception as first:
                raise error from first
        raise error
    except Exception as caught:  # noqa: BLE001  whatever it is, it is what was asked for
        return caught


def test_a_python_error_has_its_type_and_last_frame() -> None:
    assert cause_of(raised(ValueError("the puck\nleft"))).startswith("ValueError: the puck left, at ")
    assert last_frame(raised(ValueError("x"))).endswith(" in raised")


def test_the_frame_is_that_of_the_error_behind_ours() -> None:
    cause = cause_of(raised(TrainingError("step raised KeyError: 'x'"), KeyError("x")))
    assert cause.startswith("step raised KeyError: 'x', at ") and "test_failure.py" in cause


def test_our_own_errors_need_no_frame() -> None:
    assert cause_of(raised(NonFiniteError("NaN or Inf at step 7 in loss/q"))) == "NaN or Inf at step 7 in loss/q"


def test_frames_of_libraries_are_passed_over() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    assert "test_failure.py" in last_frame(caught.value)


def test_long_words_leave_room_for_the_frame() -> None:
    cause = cause_of(raised(ValueError("x" * 1000)))
    assert len(cause) <= 300 and cause.endswith(" in raised")


def test_a_full_disk_says_so() -> None:
    assert cause_of(raised(OSError(errno.ENOSPC, "No space left"))).startswith("the disk is full")


def test_an_error_without_a_frame() -> None:
    assert cause_of(ValueError()) == "ValueError: no message"
