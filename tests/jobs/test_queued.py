"""Lines of squeue: what of the time limit is left, and how far a job gets."""

from __future__ import annotations

import pytest

from tdmpc_lab.jobs.queued import QueueLine, share_at_limit, span_s


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0:00", 0),
        ("16:00", 960),
        ("3:12:05", 11525),
        ("1-02:03:04", 93784),
        ("30-00:00:00", 2592000),
        ("UNLIMITED", None),
        ("NOT_SET", None),
        ("INVALID", None),
        ("", None),
        ("5", None),
    ],
)
def test_spans(text: str, seconds: float | None) -> None:
    assert span_s(text) == seconds


@pytest.mark.parametrize(
    ("limit", "used", "left"),
    [("1:00:00", "0:30", 3570.0), ("10:00", "11:00", 0.0), ("UNLIMITED", "0:30", None), ("1:00:00", "", None)],
)
def test_what_is_left(limit: str, used: str, left: float | None) -> None:
    assert QueueLine("RUNNING", "day", limit, "None", used=used).left_s == left


@pytest.mark.parametrize(
    ("step", "steps", "rate", "left", "share"),
    [(0, 100, 1.0, 50.0, 0.5), (40, 100, 1.0, 10.0, 0.5), (0, 100, 1.0, 100.0, None), (0, 0, 1.0, 1.0, None)],
)
def test_the_share_done_at_the_limit(step: int, steps: int, rate: float, left: float, share: float | None) -> None:
    assert share_at_limit(step, steps, rate, left) == share


@pytest.mark.parametrize(
    ("nodelist", "reason", "place"),
    [("node7", "None", "node7"), ("", "Priority", "(Priority)"), ("", "None", ""), ("node7", "Prolog", "node7")],
)
def test_where_or_why(nodelist: str, reason: str, place: str) -> None:
    assert QueueLine("PENDING", "day", "1:00", reason, nodelist=nodelist).place == place
