"""Files that extend others."""

from __future__ import annotations

from pathlib import Path

import pytest
from spec_fixtures import (
    ENV,
    POSITIVE,
    load,
    problems,
    write,
)

from tdmpc_lab.config.loader import load_spec
from tdmpc_lab.errors import SpecError


def test_extends_is_merged_in_depth_and_lists_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    write(tmp_path, "extends: deeper.yaml\nname: base\nabout: base\neval: {every: 7}\n", "common/base.yaml")
    write(
        tmp_path,
        "env: {id: A-v0, options: {a: 1, b: 2}}\nagent: {horizon: 3, lr: 1}\nslurm: {setup: [a, b]}\neval: off",
        "common/deeper.yaml",
    )
    spec = load(
        tmp_path,
        "extends: common/base.yaml\nenv: {options: {b: 3}}\nagent: {horizon: 4}\nslurm: {setup: [c]}\n",
    )
    assert spec.name == "demo"  # two experiments of one name would be mixed up: the name is not inherited
    assert spec.about == "base"
    assert (spec.env.id, spec.env.options) == ("A-v0", {"a": 1, "b": 3})
    assert (spec.agent.horizon, spec.agent.lr) == (4, 1.0)
    assert spec.slurm.setup == ("c",)
    assert spec.eval is not None
    assert spec.eval.every == 7


def test_a_child_can_switch_off_and_reset(tmp_path: Path) -> None:
    write(tmp_path, f"{ENV}eval: {{every: 7}}\ntrain: {{seed_steps: 5}}", "base.yaml")
    spec = load(tmp_path, "extends: base.yaml\neval: off\ntrain: {seed_steps: null}")
    assert spec.eval is None
    assert spec.train.seed_steps is None


def test_errors_of_parent_and_child_are_all_shown(tmp_path: Path) -> None:
    write(tmp_path, "agent:\n  horizon: -1\n  lr: x\nplanner:\n  samples: 10\n", "base.yaml")
    assert problems(tmp_path, f"{ENV}agent:\n  horizon: -2\nextends: base.yaml\n") == [
        f"demo.yaml:3: agent.horizon: found -2; allowed: {POSITIVE}",
        f"base.yaml:2: agent.horizon: found -1; allowed: {POSITIVE}",
        "base.yaml:3: agent.lr: found x; allowed: a number > 0",
        "base.yaml:5: planner.samples: found 10, but planner.elites (64, the default) must be at most this",
        "base.yaml:5: planner.samples: found 10, but planner.policy_trajectories (24, the default) must be less than "
        "this: some sequences have to be sampled",
    ]


def test_a_parent_that_can_not_be_read(tmp_path: Path) -> None:
    write(tmp_path, "a: b: c", "base.yaml")
    assert problems(tmp_path, "extends: base.yaml\nagent: {lr: 0}\n") == [
        "demo.yaml:2: agent.lr: found 0; allowed: a number > 0",
        "base.yaml:1: not YAML at column 5: a second ':' where none can be "
        "(check the indentation, and quote a text that holds ': ')",
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bse.yaml", "no such file: bse.yaml (did you mean base.yaml?)"),
        ("base", "no such file: base (did you mean base.yaml?)"),
        ("nothing.yaml", "no such file: nothing.yaml"),
        ("no/base.yaml", "no such file: no/base.yaml (there is no folder no either)"),
        (".", "this is a folder: . (name a YAML file)"),
        ("[base.yaml]", "found no text; allowed: the name of one YAML file, relative to this one"),
        ("5", "found 5; allowed: the name of one YAML file, relative to this one"),
        ("", "found no text; allowed: the name of one YAML file, relative to this one"),
        ("!x base.yaml", "a tag (`!…`) is not allowed (remove it; quote a value that shall be text)"),
        ("demo.yaml", "files extend each other in a circle: demo.yaml → demo.yaml (remove one of the links)"),
        ('"a\\0b"', 'found "a\\0b"; allowed: the name of one YAML file, relative to this one'),
    ],
)
def test_wrong_extends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, expected: str) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, ENV, "base.yaml")
    Path("demo.yaml").write_text(f"{ENV}extends: {value}\nagent: {{lr: 0}}\n")
    with pytest.raises(SpecError) as caught:
        load_spec(Path("demo.yaml"))
    assert [str(problem) for problem in caught.value.problems] == [
        f"demo.yaml:2: extends: {expected}",
        "demo.yaml:3: agent.lr: found 0; allowed: a number > 0",
    ]


def test_a_longer_circle_is_told_where_it_closes(tmp_path: Path) -> None:
    write(tmp_path, "about: x\nextends: c.yaml", "b.yaml")
    write(tmp_path, "extends: ./b.yaml", "c.yaml")
    assert problems(tmp_path, f"{ENV}extends: b.yaml") == [
        "c.yaml:1: extends: files extend each other in a circle: b.yaml → c.yaml → b.yaml (remove one of the links)"
    ]
