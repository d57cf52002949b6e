"""Values from the command line, and rules between keys wherever these stand."""

from __future__ import annotations

from pathlib import Path

import pytest
from spec_fixtures import (
    COMMAND_FORM,
    ENV,
    NAME,
    ONE_LINE,
    POSITIVE,
    load,
    problems,
    write,
)

from tdmpc_lab.config.loader import load_spec
from tdmpc_lab.config.schema import EvalConfig


def test_overrides_win(tmp_path: Path) -> None:
    text = "name: x\nagent: {horizon: 3}\neval: off\nslurm: {setup: [a]}\n"
    text += "env: {id: A-v0, options: {a: 1, b: {c: 2}}}\n"
    overrides = (
        "agent.horizon=5",
        " agent.lr = 1e-4",
        "train.steps=5e5",
        "env.options.b.d=x=y",
        "eval.every=7",
        "slurm.setup=[x, y]",
        "about=fix #3: less",
        'why="no"',
        "name=z",
    )
    loaded = load_spec(write(tmp_path, text), overrides)
    spec = loaded.spec
    assert loaded.overrides == overrides
    assert loaded.text == text
    assert (spec.name, spec.about, spec.why) == ("z", "fix #3: less", "no")
    assert (spec.agent.horizon, spec.agent.lr, spec.train.steps) == (5, 1e-4, 500_000)
    assert spec.env.options == {"a": 1, "b": {"c": 2, "d": "x=y"}}
    assert spec.eval == EvalConfig(every=7)
    assert spec.slurm.setup == ("x", "y")


def test_an_override_can_hold_what_is_required(tmp_path: Path) -> None:
    assert load(tmp_path, "about: x", "env.id=A-v0", "eval=off").eval is None


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("agent.horizon", "command line: found 'agent.horizon'; allowed: " + COMMAND_FORM),
        ("=5", "command line: found '=5'; allowed: " + COMMAND_FORM),
        ("agent..lr=5", "command line: found 'agent..lr=5'; allowed: " + COMMAND_FORM),
        ("agent.horizn=5", "command line: agent.horizn: unknown key (did you mean 'horizon'?)"),
        ("horizon=5", "command line: horizon: unknown key (did you mean agent.horizon?)"),
        ("agent.horizon=-5", f"command line: agent.horizon: found -5; allowed: {POSITIVE}"),
        ("agent.horizon.x=5", f"command line: agent.horizon: found keys with values; allowed: {POSITIVE}"),
        ("name=12", f"command line: name: found 12; allowed: {NAME} (write 'name=\"12\"')"),
        ("about=", f'command line: about: found nothing; allowed: {ONE_LINE} (write "" for no text)'),
        ("extends=x", "command line: extends: allowed in a file only"),
        (
            "agent={lr: 0",
            "command line: agent: not YAML at column 1: a bracket that is never closed (close it)",
        ),
        ("agent={lr: !x 0}", "command line: agent.lr: a tag (`!…`) is not allowed"),
        ("about=[!x 0]", "command line: about.0: a tag (`!…`) is not allowed"),
        ("agent={lr: 1, lr: 2}", "command line: agent.lr: given twice, first in line 1 (keep one of them)"),
        (
            "planner.samples=64",
            "command line: planner.samples: found 63, but planner.elites (64, demo.yaml:2) must be at most this",
        ),
    ],
)
def test_wrong_overrides(tmp_path: Path, override: str, expected: str) -> None:
    text = f"{ENV}planner: {{elites: 65}}"
    if "samples" in override:
        text = f"{ENV}planner: {{elites: 64}}"
        override = "planner.samples=63"
    found = problems(tmp_path, text, override)
    assert found[0].startswith(expected)
    assert all(problem.startswith("command line: ") for problem in found)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["agent.horizon=3", "agent.horizon=3", " agent.horizon =4"],
            ["agent.horizon: given twice, first as 'agent.horizon=3' (keep one of them)"] * 2,
        ),
        (
            ["eval=off", "eval.every=10"],
            ["eval.every: lies below eval, which is given as well, as 'eval=off' (keep one of them)"],
        ),
        (
            ["eval.every=10", "eval={}"],
            ["eval: lies above eval.every, which is given as well, as 'eval.every=10' (keep one of them)"],
        ),
        (
            ["agent.lr=0", "agent.lr=1"],
            [
                "agent.lr: given twice, first as 'agent.lr=0' (keep one of them)",
                "agent.lr: found 0; allowed: a number > 0",
            ],
        ),
    ],
)
def test_two_overrides_for_one_key(tmp_path: Path, overrides: list[str], expected: list[str]) -> None:
    assert problems(tmp_path, ENV, *overrides) == [f"command line: {problem}" for problem in expected]


def test_keys_side_by_side_are_not_one(tmp_path: Path) -> None:
    spec = load(tmp_path, ENV, "env.options.a=1", "env.options.ab=2", "env.max_episode_steps=9")
    assert spec.env.options == {"a": 1, "ab": 2}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("planner: {elites: 513}", "planner.elites: 513 must be at most planner.samples (512, the default)"),
        (
            "planner: {samples: 24, elites: 2}",
            "planner.policy_trajectories (24, the default) must be less than",
        ),
        (
            "agent: {latent_dim: 12}",
            "agent.latent_dim: 12 must be a multiple of agent.simnorm_dim (8, the default)",
        ),
        ("agent: {bin_low: 1e1}", "agent.bin_low: 1e1 must be less than agent.bin_high (10.0, the default)"),
        ("agent: {log_std_max: -11}", "agent.log_std_min (-10.0, the default) must be less than"),
        (
            "planner: {std_max: 0.01}",
            "planner.std_max: found 0.01, but planner.std_min (0.05, the default) must be at most this",
        ),
        (
            "train: {replay_capacity: 10}",
            "train.replay_capacity: 10 must be at least 2 more than agent.horizon (9",
        ),
        ("train: {steps: 5, seed_steps: 5}", "train.seed_steps: 5 must be less than train.steps (5, "),
    ],
)
def test_rules_between_keys(tmp_path: Path, line: str, expected: str) -> None:
    (problem,) = problems(tmp_path, f"{ENV}{line}")
    assert problem.startswith("demo.yaml:2: ")
    assert expected in problem


@pytest.mark.parametrize(
    "line",
    [
        "planner: {elites: 512}",
        "planner: {samples: 25, elites: 25}",
        "planner: {std_min: 2.0}",
        "train: {replay_capacity: 11}",
        "train: {steps: 5, seed_steps: 4}",
        "train: {steps: 5}",
    ],
)
def test_rules_at_their_limit(tmp_path: Path, line: str) -> None:
    load(tmp_path, f"{ENV}{line}")


def test_episodes_shorter_than_the_horizon(tmp_path: Path) -> None:
    load(tmp_path, "env: {id: x, max_episode_steps: 9}")
    (problem,) = problems(tmp_path, "env:\n  id: x\n  max_episode_steps: 8")
    assert problem == (
        "demo.yaml:3: env.max_episode_steps: 8 must be at least "
        "agent.horizon (9, the default): shorter episodes are never sampled"
    )


def test_a_rule_across_lines_and_files_names_both_places(tmp_path: Path) -> None:
    text = f"{ENV}planner:\n  samples: 32\n  policy_trajectories: 0\n  elites: 33"
    assert problems(tmp_path, text) == [
        "demo.yaml:5: planner.elites: 33 must be at most planner.samples (32, demo.yaml:3)"
    ]
    write(tmp_path, "agent: {simnorm_dim: 16}", "base.yaml")
    assert problems(tmp_path, f"extends: base.yaml\n{ENV}agent: {{latent_dim: 8}}") == [
        "demo.yaml:3: agent.latent_dim: 8 must be a multiple of "
        "agent.simnorm_dim (16, base.yaml:1): SimNorm splits the latent into groups"
    ]
    assert problems(tmp_path, ENV, "agent.simnorm_dim=7", "agent.latent_dim=8") == [
        "command line: agent.latent_dim: 8 must be a multiple of "
        "agent.simnorm_dim (7, command line): SimNorm splits the latent into groups"
    ]
