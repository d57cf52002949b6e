from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tdmpc_lab.errors import RecordError
from tdmpc_lab.files import append_jsonl
from tdmpc_lab.jobs.metrics import (
    as_float,
    as_int,
    eval_rows,
    last_step,
    latest_rows,
    telling_rows,
    without_replaced,
    without_superseded,
)
from tdmpc_lab.jobs.paths import JobPaths


def test_reading_the_tail_and_the_evaluations(tmp_path: Path) -> None:
    paths = JobPaths(tmp_path)
    assert latest_rows(paths) == eval_rows(paths) == []
    for step in range(1, 41):
        split = "eval" if step % 10 == 0 else "train"
        append_jsonl(paths.metrics, {"step": step, "split": split})
    with paths.metrics.open("ab") as file:
        file.write(b'{"step": 41, "spl')
    tail = latest_rows(paths, max_bytes=100)
    assert 1 <= len(tail) < 40
    assert last_step(tail) == 40
    assert [row["step"] for row in eval_rows(paths)] == [10, 20, 30, 40]


ROWS = st.lists(
    st.sampled_from(
        [
            {"split": "train", "return": -4.0, "episode_length": 20},
            {"split": "train", "loss/total": 0.5, "updates": 100, "steps_per_s": 8.0},
            {"split": "train", "diag/model_error": 0.1, "text": 'with "split":"eval" in it' * 60},
            {"split": "eval", "return_mean": 7.5, "win": 0.9},
        ]
    ),
    max_size=30,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, torn=st.booleans(), padding=st.integers(0, 3))
def test_the_rows_that_tell_say_the_same_as_all(
    tmp_path: Path, rows: list[dict[str, Any]], torn: bool, padding: int
) -> None:
    paths = JobPaths(tmp_path)
    paths.metrics.unlink(missing_ok=True)
    filler = [{"split": "train", "x": "y" * 5000}] * padding
    for step, row in enumerate([*rows, *filler]):
        append_jsonl(paths.metrics, {"step": step, "attempt": 1, **row} | {"split": row["split"]})
    if torn:
        with paths.metrics.open("ab") as file:
            file.write(b'{"step":99,"split":"eval","return_mean":1')
    few, all_rows = telling_rows(paths), latest_rows(paths)

    def last(found: list[dict[str, Any]], key: str) -> Any:
        return next((row for row in reversed(found) if key in row), None)

    for key in ("steps_per_s", "return_mean", "return", "step"):
        assert last(few, key) == last(all_rows, key)
    assert last_step(few) == last_step(all_rows)


def test_rows_of_another_writer_and_damaged_ones(tmp_path: Path) -> None:
    paths = JobPaths(tmp_path)
    assert telling_rows(paths) == []
    paths.metrics.write_text('{"split": "eval", "step": 3}\n{"step": 4, "split": "train"}\n')
    assert telling_rows(paths) == latest_rows(paths)
    paths.metrics.write_text('{"step":1,"split":"train","steps_per_s":1}\nno row "split":"eval"\n')
    with pytest.raises(RecordError, match=r"metrics\.jsonl:2"):
        telling_rows(paths)


def test_last_step_skips_rows_without_one() -> None:
    assert last_step([]) is None
    assert last_step([{"step": 3}, {"step": "4"}, {}]) == 3


def test_steps_done_again_after_a_resume_replace_those_before() -> None:
    rows = [{"step": s, "attempt": a} for s, a in ((10, 1), (20, 1), (30, 1), (20, 2), (25, 2))]
    assert without_superseded([*rows[:3], {"step": None}, *rows[3:]]) == [rows[0], rows[3], rows[4]]


def test_values_of_a_foreign_file() -> None:
    assert [as_int(v) for v in (3, True, 3.0, "3", None)] == [3, None, None, None, None]
    assert [as_float(v) for v in (3, 2.5, True, "3", None, math.nan, math.inf, 10**400)] == [
        3.0,
        2.5,
        *[None] * 6,
    ]


def _write(paths: JobPaths, *rows: tuple[int, str, int]) -> None:
    for step, split, attempt in rows:
        append_jsonl(paths.metrics, {"step": step, "split": split, "attempt": attempt})


def _steps(paths: JobPaths) -> list[tuple[int, int]]:
    return [(row["step"], row["attempt"]) for row in eval_rows(paths)]


def test_evaluations_that_a_later_attempt_does_again_are_left_out(tmp_path: Path) -> None:
    paths = JobPaths(tmp_path)
    _write(paths, (10, "train", 1), (10, "eval", 1), (20, "eval", 1), (20, "train", 1), (30, "eval", 1))
    assert _steps(paths) == [(10, 1), (20, 1), (30, 1)]
    _write(paths, (25, "train", 2))  # it continued from 20: the evaluation at 30 is of weights that are gone
    assert _steps(paths) == [(10, 1), (20, 1)]
    _write(paths, (30, "eval", 2))
    assert _steps(paths) == [(10, 1), (20, 1), (30, 2)]


def test_a_torn_or_foreign_line_among_the_evaluations(tmp_path: Path) -> None:
    paths = JobPaths(tmp_path)
    _write(paths, (10, "eval", 1), (20, "eval", 1))
    whole = paths.metrics.read_bytes()
    for cut in range(1, len(whole) // 2):
        paths.metrics.write_bytes(whole[:-cut])
        assert _steps(paths) == [(10, 1)]
    paths.metrics.write_bytes(whole + b'\n{"split": "eval", "attempt": 1, "step": 30}\n')  # as another tool writes it
    assert _steps(paths) == [(10, 1), (20, 1), (30, 1)]
    paths.metrics.write_bytes(whole + b'{"step":30,"split":"eval","attempt":\n')
    with pytest.raises(RecordError, match=r"metrics.jsonl:3: not a whole JSON object"):
        eval_rows(paths)


def test_rows_of_several_environments_stay_unless_a_later_attempt_did_their_steps_again() -> None:
    rows = [{"step": s, "env": e, "attempt": a} for s, e, a in ((10, 0, 1), (10, 1, 1), (20, 0, 1), (20, 0, 2))]
    assert without_replaced(rows) == [rows[0], rows[1], rows[3]]
    again = [*rows, {"step": 10, "env": 0, "attempt": 3}, {"attempt": 3}]
    assert without_replaced(again) == again[4:]
    assert without_replaced([]) == []
