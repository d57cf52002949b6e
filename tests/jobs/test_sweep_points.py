"""A job's point of a sweep in words, long and short."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tdmpc_lab.jobs.paths import JobPaths
from tdmpc_lab.jobs.record import JobRecord, read_record, write_record
from tdmpc_lab.jobs.variants import place_text, point_label, point_text, what_it_is


def record(sweep: dict[str, Any] | None, about: str = "shorter") -> JobRecord:
    return JobRecord(
        id="7_3",
        array_id="7",
        array_task=3,
        experiment="demo",
        about=about,
        group="0",
        seed=1,
        cluster="slurm",
        spec_file="demo.yaml",
        submitted_at="2026-02-03T09:14:22+01:00",
        steps_total=5,
        sweep=sweep,
    )


POINT = {"agent.horizon": 4, "train.seed": 1}


def test_a_point_in_words() -> None:
    job = record({"index": 3, "count": 6, "point": POINT})
    assert point_text(job) == "agent.horizon=4, train.seed=1"
    assert place_text(job) == "agent.horizon=4, train.seed=1 (job 4 of 6)"
    assert what_it_is(job) == "horizon 4, seed 1 · shorter"
    assert what_it_is(record({"point": {"eval": None}}, about="")) == "eval off"
    assert place_text(record({"index": 0, "count": 2, "point": {}})) == "nothing changed (job 1 of 2)"


@pytest.mark.parametrize("sweep", [None, {}, {"point": 5, "index": "x"}])
def test_without_a_sweep_or_with_a_torn_one(sweep: dict[str, Any] | None) -> None:
    assert (point_text(record(sweep)), place_text(record(sweep)), what_it_is(record(sweep))) == ("", "", "shorter")


@pytest.mark.parametrize(
    ("point", "label"),
    [
        (POINT, "h4-s1"),
        ({}, ""),
        ({"agent.lr": 3e-4, "train.batch_size": 64}, "lr0.0003-bs64"),
        ({"agent.horizon": 4, "agent.hidden_dim": 8}, "h4-hd8"),
        ({"train.seed": 1, "planner.samples": 8}, "se1-sa8"),
        ({"a.seed": 1, "b.seed": 2}, "a.seed1-b.seed2"),
        ({"reward.shaping": None, "train.seed": 1, "agent.horizon": 3, "reward.scale": 2}, "sh=off-se1-h3-sc2"),
        ({"eval": None, "env.options.fast": True}, "e=off-f=on"),
        ({"reward.backprop": {"bonus": 10, "kind": "a b/c"}}, "b=bonus10_kind=a_b_c"),
        ({"agent.policy": "clipped_gaussian"}, "p=clipped_gaussian"),
        ({"env.options.weights": [0.5, 1]}, "w=0.5_1"),
    ],
)
def test_labels(point: dict[str, Any], label: str) -> None:
    assert point_label(point) == label


def test_a_label_without_the_seed_and_of_many_keys() -> None:
    assert point_label(POINT, leave_out=("train.seed",)) == "h4"
    assert len(point_label({f"env.options.key_{chr(97 + i)}": "x" * 20 for i in range(9)})) == 60


def test_the_record_keeps_the_point(tmp_path: Path) -> None:
    paths = JobPaths(tmp_path / "7_3")
    paths.folder.mkdir()
    job = record({"index": 3, "count": 6, "point": POINT})
    write_record(paths, job)
    assert read_record(paths) == job
    data = json.loads(paths.record.read_text())
    del data["sweep"]  # as an older version wrote it
    paths.record.write_text(json.dumps(data))
    assert read_record(paths).sweep is None
