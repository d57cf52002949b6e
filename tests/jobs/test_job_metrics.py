from __future__ import annotations

import math
from pathlib import Path

from tdmpc_lab.files import append_jsonl
from tdmpc_lab.jobs.metrics import (
    as_float,
    as_int,
    eval_rows,
    last_step,
    latest_rows,
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
