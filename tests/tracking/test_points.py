from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tdmpc_lab.tracking.points import Sent, attempt_starts, mark_before, metric_name, row_points, safe_name

START = datetime(2026, 2, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("key", "split", "name"),
    [
        ("return", "train", "train/return"),
        ("return_mean", "eval", "eval/return_mean"),
        ("loss/reward", "train", "loss/reward"),
        ("a%b", "train", "train/a_u25_b"),
        ("a//b", "train", "a/b"),
        ("../b", "train", "_u2e__u2e_/b"),
    ],
)
def test_metric_names(key: str, split: str, name: str) -> None:
    assert metric_name(key, split) == name


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("win_weak", "eval/win_weak"),
        ("win_1971498:plan", "eval/win_1971498:plan"),
        ("win_jobs/1971498/checkpoints/step_000050.pt", "eval/win_1971498_step_000050-?"),
        ("win_low_jobs/1971498/checkpoints/step_000050.pt:plan", "eval/win_low_1971498_step_000050-?_plan"),
        ("return_best.pt", "eval/return_best-?"),
        ("loss_../team's agents/föhn 3/", "eval/loss_team_u27_s agents_föhn 3-?"),
        ("loss/value_/of", "loss/value_/of"),  # a section of its own, no opponent
    ],
)
def test_opponents_given_as_paths_are_named_shortly(key: str, name: str) -> None:
    assert re.fullmatch(re.escape(name).replace(r"\?", "[0-9a-f]{4}"), metric_name(key, "eval"))


def test_agents_of_one_file_name_stay_different() -> None:
    assert metric_name("win_a/b/x/best.pt", "eval") != metric_name("win_c/b/x/best.pt", "eval")
    assert len(metric_name(f"win_{'x' * 300}.pt", "eval")) < 60


def test_long_names_stay_different() -> None:
    names = {safe_name("x" * 300 + end) for end in "ab"}
    assert len(names) == 2
    assert all(len(name) <= 250 for name in names)


def test_only_finite_numbers_become_points() -> None:
    row = {"step": 5, "split": "eval", "wall_s": 1.5, "a": math.nan, "b": math.inf, "c": "x"}
    points = row_points({**row, "d": True, "e": None, "f": 2}, START)
    assert {p.name: p.value for p in points} == {"eval/f": 2.0}
    assert {p.time_ms for p in points} == {round((START.timestamp() + 1.5) * 1000)}
    assert {p.step for p in points} == {5}


@pytest.mark.parametrize("split", ["train", "eval"])
def test_what_says_where_a_row_is_from_is_no_metric(split: str) -> None:
    row = {"step": 5, "split": split, "attempt": 2, "env": 3, "wall_s": 1.5, "return": -1.0, "steps_per_s": 40.0}
    assert [p.name for p in row_points(row, START)] == [f"{split}/return", f"{split}/steps_per_s"]


def test_a_row_without_a_step_gives_no_points() -> None:
    assert row_points({"split": "train", "x": 1.0}, START) == []
    assert row_points({"step": 10**30, "split": "train", "x": 1.0}, START) == []  # more than a database holds


def test_values_that_no_calendar_or_float_holds_do_no_harm() -> None:
    (point,) = row_points({"step": 5, "wall_s": 1e300, "x": 1.0, "y": 10**400}, START)
    assert (point.name, point.time_ms) == ("train/x", round(START.timestamp() * 1000))


def test_an_attempt_that_resumes_counts_from_where_the_last_one_stopped() -> None:
    events = [
        {"event": "started", "attempt": 1, "time": START.isoformat()},
        {"event": "started", "attempt": 2, "time": (START + timedelta(hours=5)).isoformat()},
        {"event": "resumed", "attempt": 2, "step": 10, "wall_s": 3600.0},
    ]
    starts = attempt_starts(events)
    assert starts[2] == START + timedelta(hours=4)
    (point,) = row_points({"step": 11, "split": "eval", "return_mean": 1.0, "wall_s": 3601.0}, starts[2])
    assert point.time_ms == round((START + timedelta(hours=5, seconds=1)).timestamp() * 1000)


def test_attempt_starts_reads_started_events_only() -> None:
    later = START + timedelta(hours=1)
    events = [
        {"event": "started", "attempt": 1, "time": START.isoformat()},
        {"event": "resumed", "attempt": 2, "time": "2026-02-04T00:00:00+00:00"},
        {"event": "started", "attempt": 2, "time": later.isoformat()},
        {"event": "started", "attempt": 3, "time": "torn"},
    ]
    assert attempt_starts(events) == {1: START, 2: later}


def _row(step: int, attempt: int) -> dict[str, object]:
    return {"step": step, "split": "train", "attempt": attempt, "x": 1.0}


def test_steps_that_an_earlier_attempt_sent_are_not_new() -> None:
    sent = Sent()
    for step in (100, 200, 300):
        assert [p.step for p in sent.new_points(_row(step, 1), START)] == [step]
    again = [p.step for step in (200, 300, 400, 400) for p in sent.new_points(_row(step, 2), START)]
    assert again == [400, 400]


def test_the_tag_brings_everything_back_but_the_latest_steps() -> None:
    sent = Sent(offset=7, mark=8, attempt=2, floor={"a": 3}, latest={"a": 5})
    assert Sent.from_tag(sent.to_tag(), {"a": 5}) == sent
    assert Sent.from_tag("no json", {"a": 5}) == Sent(latest={"a": 5})
    assert Sent.from_tag(None, {}) == Sent()


def test_a_tag_too_long_for_mlflow_keeps_the_highest_step() -> None:
    sent = Sent(attempt=1, floor={"n" * 200 + str(k): k for k in range(60)})
    tag = sent.to_tag()
    assert len(tag) <= 8000
    back = Sent.from_tag(tag, {})
    assert back.new_points({"step": 59, "attempt": 1, "new": 1.0}, START) == []
    assert len(back.new_points({"step": 60, "attempt": 1, "new": 1.0}, START)) == 1


def test_a_file_cut_and_written_anew_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    sent = Sent(offset=24, mark=mark_before(path, 24), attempt=1)
    assert sent.follow(path) == 24
    path.write_text('{"step": 1}\n{"step": 2, "more": 1}\n{"step": 3}\n')
    assert sent.follow(path) == 0
    path.unlink()
    assert mark_before(path, 24) == -1
