"""The two-player core: interface, quirks, rewards, mirrored view."""

from __future__ import annotations

import copy
import pickle
import runpy
import sys
import types
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from tdmpc_lab.envs import hockey
from tdmpc_lab.envs.hockey import BasicOpponent, HockeyEnv, HockeyEnv_BasicOpponent, Mode
from tdmpc_lab.envs.hockey.single import OnePlayerHockey

NOTHING = np.zeros(8, np.float32)
SHOOT_1 = np.array([0, 0, 0, 1, 0, 0, 0, 0], np.float32)


def catching(*, one: bool = True) -> HockeyEnv:
    """A game in which the puck rolls slowly onto a racket and is caught in the first steps."""
    env = HockeyEnv()
    env.reset(one_starting=True, seed=0)
    side = 1 if one else -1
    env.puck.position, env.puck.linearVelocity = (5 - side * 2.5, 4.0), (-side * 3.0, 0.0)
    return env


def until_caught(env: HockeyEnv, *, one: bool = True) -> Any:
    for _ in range(20):
        result = env.step(NOTHING)
        if result[0][16 if one else 17] == 15:
            return result
    raise AssertionError("nobody caught the puck")


# --- interface -------------------------------------------------------------------------------------------------


def test_the_constants_have_the_originals_names_and_values() -> None:
    found = {name: getattr(hockey, name) for name in hockey.__all__ if name.isupper() and name != "OPPONENT_NAMES"}
    assert found == {
        "FPS": 50,
        "SCALE": 60.0,
        "VIEWPORT_W": 600,
        "VIEWPORT_H": 480,
        "W": 10.0,
        "H": 8.0,
        "CENTER_X": 5.0,
        "CENTER_Y": 4.0,
        "ZONE": 0.5,
        "MAX_ANGLE": np.pi / 3,
        "MAX_TIME_KEEP_PUCK": 15,
        "GOAL_SIZE": 75,
        "RACKETFACTOR": 1.2,
        "FORCEMULTIPLIER": 6000,
        "SHOOTFORCEMULTIPLIER": 60,
        "TORQUEMULTIPLIER": 400,
        "MAX_PUCK_SPEED": 25,
        "RACKETPOLY": [(-10, 20), (5, 20), (5, -20), (-10, -20), (-18, -10), (-21, 0), (-18, 10)],
    }
    assert [(mode.name, mode.value) for mode in Mode] == [("NORMAL", 0), ("TRAIN_SHOOTING", 1), ("TRAIN_DEFENSE", 2)]


def test_a_script_of_the_original_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the import is another one; here not even that."""
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np\n"
        "import hockey.hockey_env as h_env\n"
        "env = h_env.HockeyEnv(mode=h_env.Mode.NORMAL)\n"
        "player1, player2 = h_env.BasicOpponent(weak=True), h_env.BasicOpponent(weak=False)\n"
        "obs, info = env.reset(one_starting=True, seed=3)\n"
        "obs_two, rewards = env.obs_agent_two(), []\n"
        "for _ in range(251):\n"
        "    action = np.hstack([player1.act(obs), player2.act(obs_two)])\n"
        "    obs, reward, done, truncated, info = env.step(action)\n"
        "    obs_two = env.obs_agent_two()\n"
        "    rewards.append((reward, env.get_reward_agent_two(env.get_info_agent_two())))\n"
        "    if done or truncated: break\n"
        "discrete = [env.discrete_to_continous_action(env.discrete_action_space.sample()) for _ in range(2)]\n"
        "env.step(np.hstack(discrete))\n"
        "env.set_state(obs)\n"
        "env.close()\n"
        "single = h_env.HockeyEnv_BasicOpponent(mode=h_env.Mode.TRAIN_DEFENSE, weak_opponent=True)\n"
        "single.reset(seed=1)\n"
        "single.step(single.action_space.sample())\n"
    )
    package = types.ModuleType("hockey")
    package.hockey_env = hockey  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hockey", package)
    monkeypatch.setitem(sys.modules, "hockey.hockey_env", hockey)
    done = runpy.run_path(str(script))
    assert done["done"] and len(done["rewards"]) > 10


@pytest.mark.parametrize("mode", [Mode.TRAIN_DEFENSE, "TRAIN_DEFENSE", 2, np.int64(2)])
def test_a_mode_is_given_as_mode_name_or_number(mode: Any) -> None:
    env = HockeyEnv(mode=mode)
    assert env.mode is Mode.TRAIN_DEFENSE and env.max_timesteps == 80
    other = HockeyEnv()
    other.reset(mode=mode, seed=1)
    assert other.mode is Mode.TRAIN_DEFENSE and other.max_timesteps == 80
    other.mode = 0  # type: ignore[assignment]
    assert other.max_timesteps == 80
    other.reset()
    assert other.max_timesteps == 250


@pytest.mark.parametrize(("mode", "error"), [("FUN", ValueError), (3, ValueError), (1.5, TypeError), ([], TypeError)])
def test_a_wrong_mode_is_refused_and_the_running_game_goes_on(mode: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="TRAIN_SHOOTING"):
        HockeyEnv(mode=mode)
    env = HockeyEnv()
    with pytest.raises(error):
        env.reset(mode=mode)
    env.step(NOTHING)


def test_the_first_argument_of_reset_is_who_starts() -> None:
    env = HockeyEnv()
    assert env.reset(True)[0][12] < 0 < env.reset(False)[0][12]


def test_attributes_of_the_original() -> None:
    env = HockeyEnv(verbose=True)
    assert (env.num_actions, env.timeStep, env.verbose, env.continuous) == (4, 0.02, True, False)
    assert env.metadata["render_fps"] == 50 and env.metadata["render.modes"] == ["human", "rgb_array"]
    assert env.action_space.shape == (8,) and env.discrete_action_space.n == 7
    assert len(env.drawlist) == 14 and env.screen is None and env.isopen
    assert env.seed(3) == [3] and 2 <= env.r_uniform(2, 3) < 3
    assert env.closest_to_goal_dist == 1000
    env.step(NOTHING)
    distance = float(np.hypot(*(env.puck.position - (10, 4))))
    assert env.closest_to_goal_dist == pytest.approx(distance, rel=1e-6)
    assert env.get_info() == env._get_info() and env._compute_reward() == 0.0
    assert HockeyEnv(keep_mode=False).action_space.shape == (6,)


def test_goals_are_printed_when_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    env = HockeyEnv(verbose=True)
    env.reset(one_starting=True, seed=0)
    env.puck.position, env.puck.linearVelocity = (9.0, 4.0), (10.0, 0.0)
    for _ in range(3):
        env.step(NOTHING)
    assert capsys.readouterr().out == "Player 1 scored\n"


def test_discrete_actions() -> None:
    env, without = HockeyEnv(), HockeyEnv(keep_mode=False)
    table = [env.discrete_to_continous_action(k) for k in range(8)]
    assert table == [
        *([0, 0, 0, 0], [-1, 0, 0, 0], [1, 0, 0, 0], [0, -1, 0, 0], [0, 1, 0, 0], [0, 0, -1, 0], [0, 0, 1, 0]),
        [0, 0, 0, 1],
    ]
    assert all(type(number) is float for row in table for number in row)
    assert [without.discrete_to_continous_action(k) for k in range(7)] == [row[:3] for row in table[:7]]


def test_actions_are_clipped_and_rounded_to_float32() -> None:
    seen = []
    for scale, kind in ((1.0, np.float64), (3.0, np.float64), (1.0, np.float32), (3.0, list)):
        env = HockeyEnv()
        env.reset(one_starting=True, seed=1)
        action = np.array([1, -1, 1, 0, 1, 1, -1, 0]) * scale
        for _ in range(30):
            obs, *_ = env.step(action.tolist() if kind is list else action.astype(kind))
        seen.append(obs.tolist())
    assert seen[0] == seen[1] == seen[2] == seen[3]
    finer = HockeyEnv()
    finer.reset(one_starting=True, seed=1)
    coarse = HockeyEnv()
    coarse.reset(one_starting=True, seed=1)
    action = np.random.default_rng(0).uniform(-1, 1, 8)
    assert not np.array_equal(action, action.astype(np.float32))
    np.testing.assert_array_equal(finer.step(action)[0], coarse.step(action.astype(np.float32))[0])


def test_the_ids_of_the_original_can_be_made() -> None:
    two = gymnasium.make("Hockey-v0")
    assert isinstance(two.unwrapped, HockeyEnv) and two.action_space.shape == (8,)
    one = gymnasium.make("Hockey-One-v0")
    assert isinstance(one.unwrapped, HockeyEnv_BasicOpponent) and not one.unwrapped.opponent.weak
    assert one.action_space.shape == (4,)
    one.reset(seed=1)
    one.step(np.zeros(4))


# --- quirks that are kept ----------------------------------------------------------------------------------------


def test_the_puck_counters_survive_a_reset_and_the_puck_jumps_to_its_holder() -> None:
    env = catching()
    until_caught(env)
    obs, _ = env.reset(one_starting=False, seed=1)
    assert obs[16] == 15 and env.obs_agent_two()[17] == 15
    obs, *_ = env.step(NOTHING)
    assert obs[16] == 14 and obs[12] == pytest.approx(-3, abs=0.5), "the puck has left the other half"


def test_the_first_reset_lets_player_two_start_and_then_they_take_turns() -> None:
    env = HockeyEnv()
    assert env.one_starts
    assert [env.reset()[0][12] < 0 for _ in range(4)] == [False, True, False, True]
    env.reset(one_starting=True)
    assert env.reset()[0][12] > 0
    training = HockeyEnv(mode=Mode.TRAIN_SHOOTING)
    training.reset(one_starting=False)
    assert training.one_starts


@pytest.mark.parametrize(("mode", "steps"), [(Mode.NORMAL, 251), (Mode.TRAIN_SHOOTING, 81)])
def test_a_game_without_a_goal_lasts_one_step_more_than_it_says(mode: Mode, steps: int) -> None:
    env = HockeyEnv(mode=mode)
    env.reset(one_starting=True, seed=0)
    ends = [env.step(NOTHING)[1:4] for _ in range(steps)]
    assert [done for _, done, _ in ends] == [False] * (steps - 1) + [True]
    assert not any(truncated for *_, truncated in ends) and env.winner == 0 and env.time == steps
    assert env.step(NOTHING)[2], "stepping on is allowed, and it stays done"


def test_a_reset_without_a_seed_forgets_the_seed() -> None:
    env = HockeyEnv()
    seeded, unseeded = [], []
    for _ in range(2):
        seeded.append(env.reset(one_starting=True, seed=5)[0].tolist())
        unseeded.append(env.reset(one_starting=True)[0].tolist())
    assert seeded[0] == seeded[1] and unseeded[0] != unseeded[1]


def test_observations_are_float64_and_shorter_without_keeping_the_puck() -> None:
    env, without = HockeyEnv(), HockeyEnv(keep_mode=False)
    assert env.reset()[0].dtype == np.float64 and env.observation_space.dtype == np.float32
    obs, *_ = without.step(np.zeros(6))
    assert obs.shape == without.obs_agent_two().shape == (16,) and without.observation_space.shape == (18,)


def test_the_discrete_space_leaves_the_shot_out() -> None:
    env = HockeyEnv()
    assert not env.discrete_action_space.contains(7) and env.discrete_to_continous_action(7)[3] == 1.0


def test_copies_are_new_environments_with_default_arguments() -> None:
    env = HockeyEnv(keep_mode=False, mode=Mode.TRAIN_DEFENSE)
    for copied in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        assert copied.keep_mode and copied.mode is Mode.NORMAL and copied.time == 0
        copied.reset(seed=1)
    weak = HockeyEnv_BasicOpponent(weak_opponent=True)
    assert not copy.deepcopy(weak).opponent.weak


def test_a_counter_of_one_is_stuck() -> None:
    env = catching()
    state = env._get_obs()
    state[16] = 1
    env.set_state(state)
    for _ in range(30):
        obs, *_ = env.step(SHOOT_1)
        assert obs[16] == 1, "neither does he shoot, nor catch the puck that touches him"


def test_touch_is_told_in_the_step_of_the_catch_only() -> None:
    env = catching()
    *_, info = until_caught(env)
    assert info["reward_touch_puck"] == 1.0
    assert env.step(NOTHING)[4]["reward_touch_puck"] == 0.0
    two = catching(one=False)
    until_caught(two, one=False)
    assert two.get_info_agent_two()["reward_touch_puck"] == 1.0 and two.get_info()["reward_touch_puck"] == 0.0


def test_the_holders_counter_runs_to_two_and_then_the_puck_is_shot() -> None:
    env = catching()
    until_caught(env)
    seen = [env.step(NOTHING)[0] for _ in range(14)]
    assert [obs[16] for obs in seen] == [*range(14, 1, -1), 0], "the shot is in the 14th step after the catch"
    assert np.abs(np.array(seen)[:13, 12] - np.array(seen)[:13, 0]).max() < 0.5, "it was carried before"
    assert seen[13][14] > 30


@pytest.mark.parametrize("one", [True, False])
def test_a_player_shoots_when_he_likes(one: bool) -> None:
    env = catching(one=one)
    until_caught(env, one=one)
    action = SHOOT_1 if one else np.roll(SHOOT_1, 4)
    own = 16 if one else 17
    assert env.step(action * 0.5)[0][own] == 14, "0.5 is not enough"
    obs, *_ = env.step(action * 0.51)
    assert obs[own] == 0 and (obs[14] if one else -obs[14]) > 30


def test_nobody_catches_without_keep_mode_or_a_puck_that_flies_away() -> None:
    env = catching()
    env.keep_mode = False
    env.num_actions = 3
    assert all(env.step(np.zeros(6))[0].shape == (16,) for _ in range(20)) and env.player1_has_puck == 0
    leaving = HockeyEnv()
    leaving.reset(one_starting=True, seed=0)
    leaving.puck.position, leaving.puck.linearVelocity = (2.6, 4.0), (1.0, 0.0)
    leaving.player1.linearVelocity = (9.0, 0.0)
    for _ in range(10):
        leaving.step(np.array([1, 0, 0, 0, 0, 0, 0, 0]))
    assert leaving.player1_has_puck == 0 and leaving.puck.linearVelocity.x > 2, "he pushed it, and that is all"


def test_the_world_lives_as_long_as_the_environment() -> None:
    env = HockeyEnv()
    world, player = env.world, env.player1
    env.reset()
    assert env.world is world and env.player1 is not player and len(list(world.bodies)) == 16


# --- observations, info and reward -------------------------------------------------------------------------------


def test_observation_and_its_mirror_entry_by_entry() -> None:
    env = HockeyEnv()
    env.reset(one_starting=True, seed=0)
    state = np.array([-3, 1, 0.2, 1, 2, 3, 2, -1, -0.3, 4, 5, 6, 0.5, -0.5, 7, 8, 0, 12], np.float64)
    env.set_state(state)
    np.testing.assert_allclose(env._get_obs(), state, rtol=1e-6)
    mirrored = [-2, 1, -0.3, -4, -5, 6, 3, -1, 0.2, -1, -2, 3, -0.5, 0.5, -7, -8, 12, 0]
    np.testing.assert_allclose(env.obs_agent_two(), mirrored, rtol=1e-6)


def test_differences_are_rounded_to_float32() -> None:
    env = HockeyEnv()
    env.reset(one_starting=True, seed=0)
    env.puck.position = (3.3, 4.1)
    obs = env._get_obs()
    assert obs[12:14].tolist() == [float(np.float32(3.3) - np.float32(5)), float(np.float32(4.1) - np.float32(4))]


def test_info_and_reward_by_hand() -> None:
    env = HockeyEnv()
    env.reset(one_starting=True, seed=0)
    env.puck.position, env.puck.linearVelocity = (5.0, 2.0), (0.0, 0.0)
    assert env.get_info()["reward_closeness_to_puck"] == 0.0, "x = 5 is nobody's half"
    env.player1.position, env.puck.position = (1.5, 2.0), (4.5, 6.0)  # 5 m apart
    env.puck.linearVelocity = (-2.5, 9.0)
    info = env.get_info()
    assert list(info) == ["winner", "reward_closeness_to_puck", "reward_touch_puck", "reward_puck_direction"]
    assert info["reward_closeness_to_puck"] == pytest.approx(-0.0576 * 5, rel=1e-12)
    assert info["reward_puck_direction"] == -2.5 * (1 / 6250)
    assert env.get_reward(info) == info["reward_closeness_to_puck"]
    two = env.get_info_agent_two()
    assert two["reward_closeness_to_puck"] == 0.0 and two["reward_puck_direction"] == 2.5 / 6250
    env.puck.linearVelocity = (0.1, 0.0)
    assert env.get_info()["reward_closeness_to_puck"] == 0.0, "it flies away from player one"
    env.reset(mode=Mode.TRAIN_SHOOTING, seed=0)
    env.player1.position, env.puck.position = (1.5, 2.0), (4.5, 6.0)
    assert env.get_info()["reward_closeness_to_puck"] == pytest.approx(-0.18 * 5, rel=1e-12)


@pytest.mark.parametrize(("done", "winner", "base"), [(False, 0, 0), (True, 0, 0), (True, 1, 10), (True, -1, -10)])
def test_the_reward_of_the_outcome(done: bool, winner: int, base: float) -> None:
    env = HockeyEnv()
    env.done, env.winner = done, winner
    info = {"reward_closeness_to_puck": -0.5, "reward_touch_puck": 1.0, "reward_puck_direction": 0.3}
    assert env.get_reward(info) == base - 0.5 and env.get_reward_agent_two(info) == -base - 0.5
    assert type(env.get_reward(info)) is float


def test_the_mirrored_view_is_symmetric() -> None:
    """Two games, one of them seen and played from the other side, stay mirror images until they touch something."""
    rng = np.random.default_rng(0)
    for seed in range(10):
        env, mirror = HockeyEnv(), HockeyEnv()
        env.reset(one_starting=seed % 2 == 0, seed=seed)
        mirror.reset(seed=seed)
        mirror.set_state(env.obs_agent_two())
        for _ in range(15):
            one, two = rng.uniform(-1, 1, (2, 4))
            _, reward, *_ = env.step(np.hstack([one, two]))
            obs, mirrored_reward, *_, mirrored_info = mirror.step(np.hstack([two, one]))
            np.testing.assert_allclose(obs, env.obs_agent_two(), atol=1e-4)
            np.testing.assert_allclose(mirror.obs_agent_two(), env._get_obs(), atol=1e-4)
            assert mirrored_info == pytest.approx(env.get_info_agent_two(), abs=1e-4)
            assert env.get_reward_agent_two(env.get_info_agent_two()) == pytest.approx(mirrored_reward, abs=1e-4)
            assert reward == pytest.approx(mirror.get_reward_agent_two(mirror.get_info_agent_two()), abs=1e-4)


def test_a_state_that_is_set_is_the_state_that_is_seen() -> None:
    env, other = HockeyEnv(), HockeyEnv()
    env.reset(one_starting=True, seed=0)
    rng = np.random.default_rng(0)
    for _ in range(40):
        obs, *_ = env.step(rng.uniform(-1, 1, 8))
    other.reset(one_starting=False, seed=9)
    other.set_state(obs)
    np.testing.assert_allclose(other._get_obs(), obs, atol=1e-6)
    assert other.time == 0, "the time is not part of the state"


def test_up_and_down_exchanged_is_the_same_game() -> None:
    """Two games, one with y, angles, spins, y forces and torques of both players negated: the same steps and outcomes.

    A step counts as the same within 1e-3. Contacts amplify rounding, so the second game is put back beside the first
    where it has left it: what is learned from is single steps.
    """
    observation, action = (np.array(signs) for signs in OnePlayerHockey.mirror_signs)
    rng = np.random.default_rng(0)
    bots = [BasicOpponent(weak=False), BasicOpponent(weak=True)]
    steps = close = touches = 0
    for seed in range(40):
        env, mirror = HockeyEnv(), HockeyEnv()
        obs, _ = env.reset(one_starting=seed % 2 == 0, seed=seed)
        mirror.reset(one_starting=seed % 2 == 0, seed=seed)
        mirror.set_state(obs * observation)
        for _ in range(250):
            one = np.clip(bots[0].act(obs) + rng.normal(0, 0.3, 4), -1, 1)
            two = np.clip(bots[1].act(env.obs_agent_two()) + rng.normal(0, 0.3, 4), -1, 1)
            obs, reward, done, _, info = env.step(np.hstack([one, two]))
            seen, mirrored_reward, mirrored_done, _, mirrored_info = mirror.step(
                np.hstack([one * action, two * action])
            )
            same = np.abs(seen - obs * observation).max() < 1e-3 and abs(reward - mirrored_reward) < 1e-3
            steps, close, touches = steps + 1, close + same, touches + info["reward_touch_puck"]
            assert (done, info["winner"]) == (mirrored_done, mirrored_info["winner"])
            if done:
                break
            if np.abs(seen - obs * observation).max() > 1e-6:
                mirror.set_state(obs * observation)
    assert steps > 2000
    assert touches > 20
    assert close >= 0.995 * steps, f"{steps - close} of {steps} steps differ"
