"""Shaping and backprop against numbers worked out by hand, and properties that must hold for any episode."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdmpc_lab.config.schema import BackpropConfig, EnvConfig, FractionRamp, Ramp, RewardConfig, ShapingConfig
from tdmpc_lab.envs import make_env
from tdmpc_lab.errors import EnvironmentSpecError
from tdmpc_lab.training.rewards import (
    backprop_bonus,
    check_reward_terms,
    episode_rewards,
    ramp_value,
    shaping_weights,
)

BACKPROP = RewardConfig(backprop=BackpropConfig(bonus=Ramp(start=10.0), discount=FractionRamp(start=0.92)))
rewards = st.lists(st.floats(-100, 100), min_size=1, max_size=300).map(np.array)


def test_the_bonus_by_hand():
    """T = 4: 10 · 0.92², 10 · 0.92, 10, and nothing at the goal itself."""
    assert backprop_bonus(4, 10.0, 0.92) == pytest.approx([8.464, 9.2, 10.0, 0.0])
    assert backprop_bonus(2, 3.0, 0.5).tolist() == [3.0, 0.0]
    assert backprop_bonus(1, 10.0, 0.92).tolist() == [0.0]
    assert backprop_bonus(3, 5.0, 0.0).tolist() == [0.0, 5.0, 0.0]
    assert backprop_bonus(3, 5.0, 1.0).tolist() == [5.0, 5.0, 0.0]


def test_a_won_episode_by_hand():
    raw = np.array([-0.5, 0.0, 10.0])
    found = episode_rewards(BACKPROP, raw, {}, won=True, episode=0)
    assert found.learned == pytest.approx([8.7, 10.0, 10.0])
    assert found.shaped.tolist() == found.raw.tolist() == raw.tolist()
    assert found.weights == {"backprop_bonus": 10.0, "backprop_discount": 0.92}


@given(raw=rewards, bonus=st.floats(-50, 50), discount=st.floats(0, 1), episode=st.integers(0, 10_000))
def test_a_lost_or_drawn_episode_never_changes(raw, bonus, discount, episode):
    config = RewardConfig(
        backprop=BackpropConfig(bonus=Ramp(start=bonus, final=0.0), discount=FractionRamp(start=discount), ramp=7)
    )
    found = episode_rewards(config, raw, {}, won=False, episode=episode)
    assert found.learned.tolist() == raw.tolist()


@given(raw=rewards)
def test_the_last_step_of_a_won_episode_never_changes(raw):
    found = episode_rewards(BACKPROP, raw, {}, won=True, episode=0)
    assert found.learned[-1] == raw[-1]
    assert (found.learned[:-1] > raw[:-1]).all() or len(raw) > 200  # far from the end the bonus is below rounding


def test_the_users_shaping_by_hand():
    """Closeness 20 → 1.5, touch 15 → 1, direction 0 → 2, over 150 + 150 episodes: his own numbers are the defaults."""
    shaping = ShapingConfig()
    start = {"closeness": 20.0, "touch": 15.0, "direction": 0.0}
    assert shaping_weights(shaping, 0) == shaping_weights(shaping, 150) == start
    assert shaping_weights(shaping, 225) == pytest.approx({"closeness": 10.75, "touch": 8.0, "direction": 1.0})
    assert shaping_weights(shaping, 151)["closeness"] == pytest.approx(20 - 18.5 / 150)
    for episode in (300, 5000):
        assert shaping_weights(shaping, episode) == pytest.approx({"closeness": 1.5, "touch": 1.0, "direction": 2.0})


def test_shaping_and_backprop_together_by_hand():
    config = RewardConfig(
        shaping=ShapingConfig(
            closeness=Ramp(start=2.0), touch=Ramp(start=3.0), direction=Ramp(start=0.5), hold=0, ramp=0
        ),
        backprop=BackpropConfig(bonus=Ramp(start=1.0), discount=FractionRamp(start=0.5)),
    )
    terms = {"closeness": np.array([-1.0, 0, 0]), "touch": np.array([0.0, 1, 0]), "direction": np.array([0.0, 0, 4])}
    found = episode_rewards(config, np.array([1.0, 1.0, 10.0]), terms, won=True, episode=0)
    assert found.raw.tolist() == [1.0, 1.0, 10.0]
    assert found.shaped.tolist() == [-1.0, 4.0, 12.0]
    assert found.learned.tolist() == [-0.5, 5.0, 12.0]


def test_ramps():
    ramp = Ramp(start=4.0, final=0.0)
    assert [ramp_value(ramp, k, hold=2, length=4) for k in range(8)] == [4, 4, 4, 3, 2, 1, 0, 0]
    assert [ramp_value(ramp, k, hold=2, length=0) for k in range(4)] == [4, 4, 0, 0]
    assert ramp_value(Ramp(start=4.0), 99, hold=0, length=10) == 4.0  # no final value: it stays
    up = FractionRamp(start=0.0, final=1.0)
    assert ramp_value(up, 5, hold=0, length=10) == 0.5


def test_switched_off_nothing_is_changed():
    raw = np.array([1.0, -2.0])
    found = episode_rewards(RewardConfig(), raw, {}, won=True, episode=0)
    assert found.learned is raw and found.weights == {}


@pytest.mark.parametrize("section", ["shaping", "backprop"])
def test_an_environment_that_tells_nothing_is_refused(section):
    config = RewardConfig(**{section: ShapingConfig() if section == "shaping" else BackpropConfig()})
    env = make_env(EnvConfig(id="Pendulum-v1"))
    with pytest.raises(EnvironmentSpecError, match=rf"reward\.{section} is for laser hockey"):
        check_reward_terms(env, "Pendulum-v1", config)
    env.close()
    hockey = make_env(EnvConfig(id="hockey"))
    check_reward_terms(hockey, "hockey", config)
    hockey.close()
