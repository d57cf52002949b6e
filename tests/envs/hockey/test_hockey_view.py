"""The one-player view, and how a spec gets it."""

from __future__ import annotations

import sys
import types
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from tdmpc_lab.config.schema import EnvConfig
from tdmpc_lab.envs import make_env
from tdmpc_lab.envs.hockey import HockeyEnv, Mode, OnePlayerHockey, make_opponent
from tdmpc_lab.errors import EnvironmentSpecError

NOTHING = np.zeros(4, np.float32)
IDS = {
    "tdmpc_lab/Hockey-v0": Mode.NORMAL,
    "tdmpc_lab/HockeyShooting-v0": Mode.TRAIN_SHOOTING,
    "tdmpc_lab/HockeyDefense-v0": Mode.TRAIN_DEFENSE,
}


def play(env: OnePlayerHockey, seed: int, steps: int = 300) -> list[Any]:
    """All that comes out of an episode in which the agent's actions depend on the seed only."""
    rng = np.random.default_rng(seed)
    obs, info = env.reset(seed=seed)
    rows: list[Any] = [(obs.tolist(), info)]
    for _ in range(steps):
        obs, reward, terminated, truncated, info = env.step(rng.uniform(-1, 1, 4).astype(np.float32))
        rows.append((obs.tolist(), reward, terminated, truncated, info))
        if terminated or truncated:
            break
    return rows


@pytest.mark.parametrize("name", IDS)
def test_gymnasiums_checker_passes(name: str) -> None:
    env = gymnasium.make(name).unwrapped
    assert isinstance(env, OnePlayerHockey) and env.mode is IDS[name]
    with warnings.catch_warnings():  # the space has no bounds, as the original's has none; nothing else is said
        warnings.filterwarnings("ignore", message=".*Box observation space m..imum value is.*infinity")
        check_env(env)


def test_spaces() -> None:
    env = OnePlayerHockey()
    assert env.observation_space == gymnasium.spaces.Box(-np.inf, np.inf, (18,), np.float32)
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (4,), np.float32)
    obs, _ = env.reset(seed=0)
    assert obs.dtype == np.float32 and obs.shape == (18,)


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("opponent", ["weak", "random", {"weak": 0.5, "strong": 0.5}])
def test_an_episode_depends_on_nothing_but_its_seed(mode: Mode, opponent: Any) -> None:
    used = OnePlayerHockey(mode=mode, opponent=opponent)
    for seed in range(4):
        np.random.seed(seed)
        play(used, 1000 + seed, 30 + 40 * seed)
        assert play(used, seed) == play(OnePlayerHockey(mode=mode, opponent=opponent), seed)
    assert play(used, 1) != play(used, 2)


def test_a_counter_does_not_survive_into_the_next_episode() -> None:
    env = OnePlayerHockey(opponent="none")
    env.reset(seed=0)
    game: Any = env.game
    game.player1_has_puck = 9
    obs, _ = env.reset(seed=1)
    assert obs[16:].tolist() == [0, 0] and env.game is not game


def test_an_episode_is_that_of_the_two_player_game() -> None:
    env, opponent = OnePlayerHockey(opponent="strong"), make_opponent("strong")
    rng = np.random.default_rng(0)
    for seed in (3, 4, 5):
        game = HockeyEnv()
        obs, info = env.reset(seed=seed)
        core_obs, core_info = game.reset(one_starting=info["one_starting"], seed=seed)
        np.testing.assert_array_equal(obs, core_obs)
        opponent.start_episode(np.random.SeedSequence([seed, 0x686F636B]).generate_state(2).tolist()[1])
        for _ in range(20):
            action = rng.uniform(-1, 1, 4).astype(np.float32)
            both = np.concatenate((action, opponent.act(game.obs_agent_two())))
            obs, reward, terminated, _, info = env.step(action)
            core_obs, core_reward, done, _, core_info = game.step(both)
            np.testing.assert_allclose(obs, core_obs, atol=1e-5)  # the core's last bits are its own
            assert reward == pytest.approx(core_reward, abs=1e-5) and terminated == done
            assert info.pop("opponent") == "strong" and info == pytest.approx(core_info, abs=1e-5)


def test_each_side_starts_in_half_of_the_episodes_or_as_asked() -> None:
    env = OnePlayerHockey()
    starts = Counter()
    for seed in range(300):
        obs, info = env.reset(seed=seed)
        assert info["one_starting"] == (obs[12] < 0)
        starts[info["one_starting"]] += 1
    assert 110 < starts[True] < 190, "a fair coin stays inside with 4.6 standard deviations"
    for asked in (True, False):
        always = OnePlayerHockey(one_starting=asked)
        assert all(always.reset(seed=seed)[1]["one_starting"] is asked for seed in range(10))
        assert env.reset(seed=0, options={"one_starting": asked})[1]["one_starting"] is asked


def test_who_plays_is_told() -> None:
    env = OnePlayerHockey(opponent={"weak": 0.5, "strong": 0.5})
    seen = set()
    for seed in range(20):
        _, info = env.reset(seed=seed)
        name = info["opponent"]
        assert {env.step(NOTHING)[4]["opponent"] for _ in range(3)} == {name}
        seen.add(name)
    assert seen == {"weak", "strong"}


@pytest.mark.parametrize(("mode", "steps"), [("NORMAL", 251), ("TRAIN_SHOOTING", 81)])
@pytest.mark.parametrize("time_limit", ["terminated", "truncated"])
def test_the_end_of_the_time(mode: str, steps: int, time_limit: Any) -> None:
    env = OnePlayerHockey(mode=mode, opponent="none", time_limit=time_limit)
    env.reset(seed=0)
    ends = [env.step(NOTHING)[2:4] for _ in range(steps)]
    assert env.episode_length == steps
    assert ends == [(False, False)] * (steps - 1) + [(time_limit == "terminated", time_limit == "truncated")]


@pytest.mark.parametrize("time_limit", ["terminated", "truncated"])
@pytest.mark.parametrize("too_late", [False, True])
def test_a_goal_always_terminates(time_limit: Any, too_late: bool) -> None:
    """Also in the last step of the time."""
    env = OnePlayerHockey(opponent="none", time_limit=time_limit, one_starting=True)
    env.reset(seed=0)
    game: Any = env.game
    if too_late:
        game.time = 250
    game.score(1)
    _, reward, terminated, truncated, info = env.step(NOTHING)
    assert (reward > 9, terminated, truncated, info["winner"]) == (True, True, False, 1)


@pytest.mark.parametrize("shape", [(3,), (8,), (1, 4), ()])
def test_an_action_of_another_shape_is_refused(shape: Any) -> None:
    env = OnePlayerHockey()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"\(4,\)"):
        env.step(np.zeros(shape, np.float32))


def test_before_the_first_reset_there_is_no_game() -> None:
    with pytest.raises(RuntimeError, match="reset"):
        OnePlayerHockey().step(NOTHING)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "FUN"}, ["TRAIN_SHOOTING", "'FUN'"]),
        ({"mode": 1.5}, ["TRAIN_SHOOTING", "1.5"]),
        ({"one_starting": "yes"}, ["true, false or null", "'yes'"]),
        ({"render_mode": "ansi"}, ["rgb_array", "'ansi'"]),
    ],
)
def test_options_that_are_not_allowed_are_explained(options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(EnvironmentSpecError) as caught:
        OnePlayerHockey(**options)
    assert all(word in str(caught.value) for word in words)
    with pytest.raises(EnvironmentSpecError) as through_spec:
        make_env(EnvConfig(id="hockey", options=options))
    assert str(through_spec.value) == str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"time_limit": "never"}, ["terminated, truncated", "'never'"]),
        ({"opponent": "stron"}, ["did you mean 'strong'"]),
    ],
)
def test_what_has_a_key_of_its_own_is_no_option_of_a_spec(options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(EnvironmentSpecError) as caught:
        OnePlayerHockey(**options)
    assert all(word in str(caught.value) for word in words)
    with pytest.raises(EnvironmentSpecError, match=rf"env\.options\.{next(iter(options))} .*: set env\."):
        make_env(EnvConfig(id="hockey", options=options))


# --- by spec -----------------------------------------------------------------------------------------------------


def test_a_spec_asks_for_hockey() -> None:
    env = make_env(EnvConfig(id="hockey"))
    assert (env.observation_dim, env.action_dim, env.episode_length) == (18, 4, 251)
    env.reset(3)
    result = env.step(NOTHING)
    assert result.info["opponent"] == "weak" and result.obs.shape == (18,)
    env.close()
    options = {"mode": "TRAIN_SHOOTING"}
    env = make_env(EnvConfig(id="hockey", options=options, opponent={"strong": 1.0}, time_limit="truncated"))
    assert env.episode_length == 81
    env.reset(3)
    results = [env.step(NOTHING) for _ in range(81)]
    assert results[-1].truncated and not results[-1].terminated and results[0].info["opponent"] == "strong"


def test_a_spec_can_shorten_the_episodes() -> None:
    env = make_env(EnvConfig(id="hockey", max_episode_steps=20))
    assert env.episode_length == 20
    env.reset(3)
    assert [env.step(NOTHING).truncated for _ in range(20)] == [False] * 19 + [True]


def test_episodes_of_the_trainer_depend_on_their_seed_only() -> None:
    used, fresh = make_env(EnvConfig(id="hockey")), make_env(EnvConfig(id="hockey"))
    for seed in (10, 11):
        used.reset(seed)
        for _ in range(30):
            used.step(np.ones(4, np.float32))
    assert used.reset(5).tolist() == fresh.reset(5).tolist()
    for _ in range(60):
        one, two = used.step(NOTHING), fresh.step(NOTHING)
        assert one.obs.tolist() == two.obs.tolist() and one.info == two.info


def test_wrong_names_in_a_spec_are_explained() -> None:
    with pytest.raises(EnvironmentSpecError, match="did you mean 'hockey'"):
        make_env(EnvConfig(id="hocky"))
    with pytest.raises(EnvironmentSpecError, match="did you mean 'opponent'"):
        make_env(EnvConfig(id="hockey", options={"oponent": "weak"}))


def test_without_the_original_package_its_id_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hockey", None)
    monkeypatch.delitem(sys.modules, "hockey.hockey_env", raising=False)
    with pytest.raises(EnvironmentSpecError) as caught:
        make_env(EnvConfig(id="hockey-original"))
    text = str(caught.value)
    assert "'hockey-original'" in text and "pip install git+https://" in text and "'hockey'" in text


def test_the_original_package_is_used_when_it_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = []

    class Original(HockeyEnv):
        def __init__(self, keep_mode: bool, mode: int) -> None:
            super().__init__(keep_mode, mode)
            made.append(self)

    module = types.ModuleType("hockey.hockey_env")
    module.HockeyEnv = Original  # type: ignore[attr-defined]
    package = types.ModuleType("hockey")
    monkeypatch.setitem(sys.modules, "hockey", package)
    monkeypatch.setitem(sys.modules, "hockey.hockey_env", module)
    env, ours = make_env(EnvConfig(id="hockey-original")), make_env(EnvConfig(id="hockey"))
    assert env.episode_length == 251
    np.testing.assert_array_equal(env.reset(1), ours.reset(1))
    for _ in range(10):
        theirs = env.step(np.ones(4, np.float32))
        np.testing.assert_allclose(theirs.obs, ours.step(np.ones(4, np.float32)).obs, atol=1e-5)
    assert len(made) == 1 and theirs.info["opponent"] == "weak"
    single = gymnasium.make("tdmpc_lab/HockeyOriginal-v0", render_mode="rgb_array")
    single.reset(seed=0)
    picture = single.render()
    assert isinstance(picture, np.ndarray) and picture.shape == (480, 600, 3)
    single.close()
