from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tdmpc_lab.errors import RecordError
from tdmpc_lab.jobs.events import EventLog, read_events, seems_over
from tdmpc_lab.text import parse_time


def test_events_come_back_in_order_with_time_and_kind(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert read_events(path) == []
    log = EventLog(path, clock=lambda: datetime(2026, 2, 3, 9, 14, 22, 123456, tzinfo=UTC))
    first = log.append("started", host="node7", pid=4242, attempt=1)
    second = log.append("failed", cause="Gerätefehler", step=None)
    assert first == {
        "time": "2026-02-03T09:14:22.123+00:00",
        "event": "started",
        "host": "node7",
        "pid": 4242,
        "attempt": 1,
    }
    assert read_events(path) == [first, second]


def test_the_clock_has_an_offset(tmp_path: Path) -> None:
    row = EventLog(tmp_path / "events.jsonl").append("warning", message="x")
    moment = datetime.fromisoformat(row["time"])
    assert moment.tzinfo is not None
    assert parse_time(row["time"]) == moment


@pytest.mark.parametrize("name", ["time", "event"])
def test_fields_of_the_log_itself_are_refused(tmp_path: Path, name: str) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    with pytest.raises(ValueError, match=name):
        log.append("warning", **{name: "x"})
    assert not log.path.exists()


def test_a_torn_last_line_is_left_out_and_a_broken_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventLog(path).append("started", attempt=1)
    with path.open("ab") as file:
        file.write(b'{"time": "2026-')
    assert [row["event"] for row in read_events(path)] == ["started"]
    EventLog(path).append("finished", step=5)
    assert [row["event"] for row in read_events(path)] == ["started", "finished"]
    path.write_bytes(b"garbage\n" + path.read_bytes())
    with pytest.raises(RecordError, match=r"events\.jsonl:1"):
        read_events(path)


@pytest.mark.parametrize(
    ("events", "over"),
    [
        ([], False),
        ([("started", 1)], False),
        ([("started", 1), ("finished", 1)], True),
        ([("started", 1), ("failed", None), ("tracking", None)], True),
        ([("started", 1), ("preempted", 1), ("started", 2)], False),
        ([("started", 1), ("timeout", 1), ("started", 2)], False),
        ([("started", 1), ("preempted", 1), ("started", 2), ("stopped", 2)], True),
        ([("started", 2), ("finished", 1)], False),  # of an attempt before: it came too late to count
        ([("stopped", None)], True),  # cancelled before it started
    ],
)
def test_jobs_that_are_plainly_over(tmp_path: Path, events: list[tuple[str, int | None]], over: bool) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    for kind, attempt in events:
        log.append(kind, cause='a text with "event":"finished" in it', **({"attempt": attempt} if attempt else {}))
    assert seems_over(log.path) is over


def test_an_outcome_that_is_torn_is_none(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"time":"x","event":"started"}\n{"time":"x","event":"finished"')
    assert seems_over(path) is False
    assert seems_over(tmp_path / "none") is False
