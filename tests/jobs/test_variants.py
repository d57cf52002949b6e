"""What a job's variant is called, and its colour."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.record import JobRecord, write_record
from tdmpc_lab.jobs.variants import PALETTE, Colours, colour, telling_keys, variant_name

RECORD = JobRecord(
    id="7_3",
    experiment="demo",
    group="a",
    seed=1,
    cluster="slurm",
    spec_file="demo.yaml",
    submitted_at="2026-02-03T09:14:22+01:00",
    steps_total=5,
)
SWEPT = {"sweep": {"point": {"agent.horizon": 4, "train.seed": 1}}, "overrides": ("agent.horizon=4", "sweep=off")}
DIFF = ("agent.horizon 18 → 9", "reward.backprop off → on", 'env.opponent {"a → b": 1} → weak')


@pytest.mark.parametrize(
    ("changes", "name", "keys"),
    [
        ({}, "demo", ()),
        (SWEPT, "h4", ("agent.horizon",)),
        (SWEPT | {"sweep": {"point": {"train.seed": 1}}, "diff": DIFF[:1]}, "horizon 9", ("agent.horizon",)),
        ({"diff": DIFF[:2]}, "horizon 9, backprop on", ("agent.horizon", "reward.backprop")),
        ({"diff": DIFF[2:]}, "opponent weak", ("env.opponent",)),
        ({"diff": ("train.seed 1 → 2", "torn"), "overrides": ("train.seed=2",)}, "demo", ()),
        ({"overrides": ("train.seed=2", " agent.lr = 1e-4", "slurm.time=1:00", "?")}, "lr 1e-4", ("agent.lr",)),
        ({"sweep": {"point": 3}, "overrides": ("sweep.train.seed=[0, 1]",)}, "demo", ()),
    ],
)
def test_the_name_and_the_keys_that_tell_a_variant(changes: dict[str, Any], name: str, keys: tuple[str, ...]) -> None:
    job = replace(RECORD, **changes)
    assert variant_name(job) == name
    assert telling_keys(job) == keys


def test_many_differences_are_cut() -> None:
    name = variant_name(replace(RECORD, diff=tuple(f"agent.key{i} 1 → 2" for i in range(30))))
    assert len(name) == 60
    assert name.endswith("…")


def submit(lab: Project, number: int, group: str, experiment: str = "demo", about: str = "") -> JobRecord:
    when = f"2026-02-03T09:14:{number:02}+01:00"
    job = replace(RECORD, id=str(number), group=group, experiment=experiment, submitted_at=when, about=about)
    paths = lab.job(job.id)
    paths.folder.mkdir(parents=True)
    write_record(paths, job)
    return job


def test_a_variant_keeps_its_colour(tmp_path: Path) -> None:
    lab = Project(tmp_path)
    later = submit(lab, 12, "b")
    first = submit(lab, 11, "a", about='it says\n  "group": "z",\n')
    again = submit(lab, 13, "a")
    elsewhere = submit(lab, 10, "b", experiment='another "quoted" ö')
    colours = Colours(lab)
    assert [colours.of(job) for job in (first, later, again, elsewhere)] == [colour(0), colour(1), colour(0), colour(0)]
    new = submit(lab, 14, "c")
    assert colours.of(new) == colour(2)
    assert Colours(lab).of(later) == colour(1)


def test_records_that_cant_be_read_cost_no_job_its_colour(tmp_path: Path) -> None:
    lab = Project(tmp_path)
    job = submit(lab, 11, "a")
    lab.job("12").record.mkdir(parents=True)
    assert Colours(lab).of(job) == colour(0)


def grey(hex_colour: str) -> float:
    """How light a colour is in a print without colours, 0 to 255."""
    red, green, blue = (int(hex_colour[i : i + 2], 16) for i in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def test_the_palette_is_told_apart() -> None:
    assert colour(len(PALETTE) + 1) == PALETTE[1]
    assert len(set(PALETTE)) == len(PALETTE)
    assert min(abs(grey(a) - grey(b)) for a, b in combinations(PALETTE[:4], 2)) > 50
    assert max(map(grey, PALETTE)) < 190  # on white
