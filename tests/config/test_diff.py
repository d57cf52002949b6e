"""What differs between two specs, in words, and which of them are one group."""

from __future__ import annotations

from typing import Any

import pytest

from tdmpc_lab.config.diff import UNSET, Change, diff, group_hash
from tdmpc_lab.config.loader import spec_from_dict
from tdmpc_lab.config.schema import Spec


def spec(**parts: Any) -> Spec:
    return spec_from_dict({"name": "x", "env": {"id": "A-v0"}, **parts})


def said(old: Spec, new: Spec) -> list[str]:
    return [str(change) for change in diff(old, new)]


def test_no_difference_by_name_and_resources() -> None:
    other = spec(name="y", about="a", why="b", compare_to="x", slurm={"cpus": 8, "time": "1:00:00"})
    assert diff(spec(), other) == []


def test_changes_in_the_order_of_the_schema() -> None:
    new = spec(
        train={"seed": 2, "seed_steps": 5, "replay_device": "host"},
        agent={"horizon": 18, "lr": 1e-5, "discount": 0.9},
        env={"id": "B-v0", "max_episode_steps": 70},
    )
    assert said(spec(), new) == [
        "env.id A-v0 → B-v0",
        "env.max_episode_steps default → 70",
        "agent.horizon 9 → 18",
        "agent.discount default → 0.9",
        "agent.lr 0.0003 → 1e-05",
        "train.seed 1 → 2",
        "train.seed_steps default → 5",
        "train.replay_device auto → host",
    ]
    assert diff(spec(), spec(agent={"horizon": 18})) == [Change("agent.horizon", 9, 18)]


def test_a_section_that_is_off() -> None:
    on, off = spec(), spec(eval=None)
    assert said(on, off) == ["eval on → off"]
    assert said(off, on) == ["eval off → on"]
    assert said(off, spec(eval={"every": 7})) == ["eval off → on", "eval.every 10000 → 7"]
    assert said(off, off) == []
    assert diff(off, on) == [Change("eval", None, True)]


def test_options_of_the_environment() -> None:
    def options(**values: Any) -> Spec:
        return spec(env={"id": "A-v0", "options": values})

    assert said(options(), options()) == []
    assert said(options(a={"b": 1}), options(a={"b": 2, "c": None})) == [
        "env.options.a.b 1 → 2",
        "env.options.a.c unset → null",
    ]
    assert diff(options(a=1), options()) == [Change("env.options.a", 1, UNSET)]
    assert said(options(a=[1, "x"]), options(a={})) == ['env.options.a [1, "x"] → {}']
    assert said(options(a=1), options(a=True)) == ["env.options.a 1 → on"]
    assert said(options(a="two words"), options(a="")) == ['env.options.a "two words" → ""']
    assert said(options(a=False), options(a="no")) == ["env.options.a off → no"]
    assert diff(options(a=float("nan")), options(a=float("nan"))) == []


def test_group_hash_has_ten_digits_and_is_stable() -> None:
    assert group_hash(spec()) == group_hash(spec())
    assert len(group_hash(spec())) == 10
    assert int(group_hash(spec()), 16) >= 0


@pytest.mark.parametrize(
    "parts",
    [
        {"name": "y", "about": "a", "why": "b", "compare_to": "z"},
        {"slurm": {"cpus": 8}},
        {"train": {"seed": 2}},
        {
            "train": {
                "device": "cpu",
                "threads": 1,
                "log_every": 7,
                "checkpoint_every": 7,
                "env_timeout": 7,
                "replay_device": "host",
            }
        },
    ],
)
def test_one_group(parts: dict[str, Any]) -> None:
    assert group_hash(spec(**parts)) == group_hash(spec())


@pytest.mark.parametrize(
    "parts",
    [
        {"env": {"id": "B-v0"}},
        {"env": {"id": "A-v0", "options": {"a": 1}}},
        {"reward": {"scale": 2.0}},
        {"agent": {"horizon": 3}},
        {"planner": {"samples": 256}},
        {"train": {"steps": 7}},
        {"train": {"envs": 7}},
        {"eval": None},
    ],
)
def test_another_group(parts: dict[str, Any]) -> None:
    assert group_hash(spec(**parts)) != group_hash(spec())


def test_the_order_of_options_makes_no_group() -> None:
    one = spec(env={"id": "A-v0", "options": {"a": 1, "b": 2}})
    two = spec(env={"id": "A-v0", "options": {"b": 2, "a": 1}})
    assert group_hash(one) == group_hash(two)
    assert diff(one, two) == []
