"""Opponents and phases of a spec: what they come to, and every mistake at its own place."""

from __future__ import annotations

from pathlib import Path

import pytest
from spec_fixtures import load, problems, write

from tdmpc_lab.config.diff import diff
from tdmpc_lab.config.loader import load_resolved, spec_from_dict
from tdmpc_lab.config.phases import opponent_weights, phases_of
from tdmpc_lab.config.schema import BackpropConfig, EnvConfig, FractionRamp, Ramp, ShapingConfig
from tdmpc_lab.config.serialize import dump_yaml

ENV = "env: {id: hockey, opponent: {weak: 0.55, strong: 0.45}}\n"
PHASES = """\
env: {id: hockey, opponent: {weak: 0.55, strong: 0.45}, self_play: on}
reward: {scale: 2, shaping: {closeness: 3, hold: 1}, backprop: off}
phases:
  - {steps: 1000, opponent: weak}
  - {steps: 500, env: {opponent: {self: 1}, time_limit: truncated}, reward: {backprop: on}}
  - {reward: {shaping: {closeness: {final: 1}}}}
"""


def test_switches_and_bare_numbers(tmp_path: Path) -> None:
    spec = load(tmp_path, ENV + "reward: {shaping: on, backprop: {bonus: 5}}\n")
    assert spec.reward.shaping == ShapingConfig()
    assert spec.reward.backprop == BackpropConfig(bonus=Ramp(start=5.0))
    assert spec.reward.backprop.discount == FractionRamp(start=0.92)
    spec = load(tmp_path, ENV + "reward: {shaping: off, backprop: {discount: 1e-1}}\n", "reward.backprop.bonus=3")
    assert spec.reward.shaping is None
    assert spec.reward.backprop is not None and spec.reward.backprop.discount.start == 0.1
    assert spec.reward.backprop.bonus == Ramp(start=3.0)


def test_a_bare_number_is_no_ramp_whatever_it_replaces(tmp_path: Path) -> None:
    write(tmp_path, ENV + "reward: {backprop: {bonus: {start: 4, final: 1}, ramp: 3}}\n", "base.yaml")
    spec = load(tmp_path, "extends: base.yaml\n", "reward.backprop.bonus=10")
    assert spec.reward.backprop is not None and spec.reward.backprop.bonus == Ramp(start=10.0)


def test_on_keeps_what_the_extended_file_says(tmp_path: Path) -> None:
    write(tmp_path, ENV + "reward: {backprop: {bonus: 4}}\n", "base.yaml")
    spec = load(tmp_path, "extends: base.yaml\nreward: {backprop: on, shaping: on}\n")
    assert spec.reward.backprop is not None and spec.reward.backprop.bonus.start == 4.0
    assert spec.reward.shaping == ShapingConfig()
    assert load(tmp_path, "extends: base.yaml\nreward: {backprop: off}\n").reward.backprop is None


def test_a_mixture_is_one_value(tmp_path: Path) -> None:
    """Merged key by key, `{strong: 1}` over the base's mixture would leave weak in it."""
    write(tmp_path, ENV, "base.yaml")
    assert load(tmp_path, "extends: base.yaml\nenv: {opponent: {strong: 1}}\n").env.opponent == {"strong": 1.0}
    assert load(tmp_path, "extends: base.yaml\n", "env.opponent={random: 2}").env.opponent == {"random": 2.0}
    assert load(tmp_path, "extends: base.yaml\nenv: {opponent: 1971498}\n").env.opponent == 1971498
    assert problems(tmp_path, "extends: base.yaml\n", "env.opponent.weak=1") == [
        "command line: env.opponent.weak: the weights of a mixture are one value: write all of them "
        "(write env.opponent={weak: …})"
    ]


def test_the_id_of_an_array_task_is_no_number(tmp_path: Path) -> None:
    """To YAML `1971498_3` is 19714983, another job."""
    assert load(tmp_path, "env: {id: hockey, opponent: 1971498_3}\n").env.opponent == "1971498_3"
    assert load(tmp_path, ENV, "env.opponent=1971498_3").env.opponent == "1971498_3"
    (phase,) = phases_of(load(tmp_path, ENV + "phases: [{steps: 1e3, opponent: 1971498_3}]\n"))
    assert phase.env.opponent == "1971498_3"


def test_who_plays() -> None:
    assert opponent_weights(EnvConfig(id="hockey")) == {"weak": 1.0}
    assert opponent_weights(EnvConfig(id="hockey", opponent=1971498)) == {"1971498": 1.0}
    assert opponent_weights(EnvConfig(id="hockey", opponent={"weak": 1, "strong": 0, "self": 2})) == {
        "weak": 1.0,
        "self": 2.0,
    }


def test_what_the_phases_come_to(tmp_path: Path) -> None:
    spec = load(tmp_path, PHASES)
    first, second, third = phases_of(spec)
    assert [phase.first_step for phase in (first, second, third)] == [0, 1000, 1500]
    assert [phase.number for phase in (first, second, third)] == [1, 2, 3]
    assert (first.env.opponent, first.reward) == ("weak", spec.reward)
    assert (second.env.opponent, second.env.time_limit) == ({"self": 1.0}, "truncated")
    assert second.reward.backprop == BackpropConfig() and second.reward.scale == 2.0
    assert third.env == spec.env  # over the spec itself, not over the phase before
    assert third.reward.shaping is not None and third.reward.shaping.closeness == Ramp(start=3.0, final=1.0)
    assert third.reward.backprop is None
    assert second.changes[-1] == "reward.backprop off → on"
    assert third.changes[-1] == "reward.backprop on → off"  # against the phase before
    assert first.changes == ('env.opponent {"weak": 0.55, "strong": 0.45} → weak',)


def test_without_phases_there_is_one(tmp_path: Path) -> None:
    spec = load(tmp_path, ENV)
    (only,) = phases_of(spec)
    assert (only.number, only.first_step, only.env, only.reward, only.changes) == (1, 0, spec.env, spec.reward, ())


def test_phases_read_back_the_same(tmp_path: Path) -> None:
    spec = load(tmp_path, PHASES)
    again = load_resolved(write(tmp_path, dump_yaml(spec), "resolved.yaml"))
    assert again == spec
    assert phases_of(again) == phases_of(spec)


def test_differences_of_opponents_and_switches() -> None:
    old = spec_from_dict({"name": "a", "env": {"id": "hockey", "opponent": {"weak": 1, "strong": 1}}})
    new = spec_from_dict({"name": "a", "env": {"id": "hockey", "opponent": "strong"}, "reward": {"backprop": True}})
    words = [str(change) for change in diff(old, new)]
    assert words == ['env.opponent {"weak": 1.0, "strong": 1.0} → strong', "reward.backprop off → on"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("env: {id: hockey, opponent: {weak: -1}}", "env.opponent.weak: found -1; allowed: a number ≥ 0"),
        ("env: {id: hockey, opponent: {weak: x}}", "env.opponent.weak: found x; allowed: a number ≥ 0"),
        ("env: {id: hockey, opponent: {we ak: 1}}", "env.opponent.we ak: found the key 'we ak'; allowed: an opponent"),
        ("env: {id: hockey, opponent: [weak]}", "env.opponent: found a list; allowed: an opponent"),
        ("env: {id: hockey, opponent: {weak: 0}}", "env.opponent: no opponent has a weight above 0"),
        ("env: {id: hockey, opponent: self}", "env.opponent: names self, and env.self_play does not say"),
        ('env: {id: hockey, opponent: "self:plan"}', "env.opponent: names self, and env.self_play does not say"),
        ("env: {id: hockey, time_limit: never}", "env.time_limit: found never; allowed: one of: terminated, truncated"),
        (ENV + "phases: {steps: 3}", "phases: found keys with values; allowed: a list"),
        (ENV + "phases: [3]", "phases.0: found 3; allowed: keys with values"),
        (ENV + "phases: [{step: 3}]", "phases.0.step: unknown key of a phase (did you mean 'steps'?)"),
        (ENV + "phases: [{steps: 0}]", "phases.0.steps: found 0; allowed: a whole number ≥ 1"),
        (ENV + "phases: [{steps: 1.5}]", "phases.0.steps: found 1.5; allowed: a whole number ≥ 1"),
        (ENV + "phases: [{}, {}]", "phases.0.steps: missing; only the last phase may leave it out"),
        (ENV + "phases: [{steps: 500_000}, {}]", "phases.1: begins at step 500000, and train.steps is 500000"),
        (ENV + "phases: [{env: {id: other}}]", "phases.0.env.id: can't change from phase to phase"),
        (ENV + "phases: [{env: {oponent: x}}]", "phases.0.env.oponent: unknown key (did you mean 'opponent'?)"),
        (ENV + "phases: [{opponent: weak, env: {opponent: x}}]", "phases.0.opponent: given twice, also in env"),
        (ENV + "phases: [{opponent: self}]", "phases.0.env.opponent: names self, and env.self_play"),
        (ENV + "phases: [{reward: {scale: 0}}]", "phases.0.reward.scale: found 0; allowed: a number > 0"),
        (
            ENV + "phases: [{reward: {shaping: {touch: {final: 1}}}}]",
            "phases.0.reward.shaping.touch.start: missing",
        ),
        (
            ENV + "phases: [{env: {max_episode_steps: 3}}]",
            "phases.0: 3 must be at least agent.horizon (9): shorter episodes are never sampled",
        ),
        (
            ENV + "phases: [{reward: {backprop: {bonus: {start: 1, final: 0}}}}]",
            "phases.0.reward.backprop.bonus: goes from 1.0 to 0.0 at once",
        ),
    ],
)
def test_one_mistake(tmp_path: Path, text: str, expected: str) -> None:
    (problem,) = problems(tmp_path, text + "\n")
    assert expected in problem and problem.startswith("demo.yaml:")


def test_all_mistakes_at_once_each_with_its_line(tmp_path: Path) -> None:
    text = PHASES.replace("opponent: weak}", "opponent: [x]}").replace("closeness: {final: 1}", "clossness: 1")
    assert [problem.split(": ")[0:2] for problem in problems(tmp_path, text)] == [
        ["demo.yaml:4", "phases.0.env.opponent"],
        ["demo.yaml:6", "phases.2.reward.shaping.clossness"],
    ]
