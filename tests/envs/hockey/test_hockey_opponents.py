from __future__ import annotations

import copy
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from tdmpc_lab.envs.hockey import BasicOpponent, HockeyEnv, HumanOpponent, Opponent, make_opponent
from tdmpc_lab.envs.hockey.opponents import MixedOpponent, NoOpponent, RandomOpponent, ScriptedOpponent, scripted_action
from tdmpc_lab.errors import EnvironmentSpecError


def state(**parts: float) -> list[float]:
    """An observation from parts: x, y, angle, vx, vy, spin, puck_x, puck_y, puck_vx, puck_vy, own."""
    own = [parts.pop(name, 0.0) for name in ("x", "y", "angle", "vx", "vy", "spin")]
    puck = [parts.pop(name, 0.0) for name in ("puck_x", "puck_y", "puck_vx", "puck_vy")]
    counter = parts.pop("own", 0.0)
    assert not parts
    return [*own, *[0.0] * 6, *puck, counter, 0.0]


# --- the bot, by hand ------------------------------------------------------------------------------------------


def test_in_front_of_a_coming_puck_it_goes_where_the_puck_will_be() -> None:
    """Gain 0.5: distance 0.5; target (−2.5 + 0.2, 0.1 + 2 · 0.5 · 0.1) = (−2.3, 0.2)."""
    obs = state(x=-3.0, y=0.1, puck_x=-2.5, puck_y=0.1, puck_vx=-1, puck_vy=2)
    action = scripted_action(obs, 0.0, 0.5, keep_mode=True)
    assert action == pytest.approx([0.7 * 0.5, 0.1 * 0.1, 0, 0])


@pytest.mark.parametrize("place", [{"puck_x": -3.2, "puck_y": 0.4}, {"puck_x": -2.5, "puck_y": 1.0}])
def test_else_it_guards_the_goal_at_the_height_of_a_coming_puck(place: dict[str, float]) -> None:
    obs = state(x=-3.0, y=0.1, puck_vx=0.49, **place)
    action = scripted_action(obs, 0.0, 0.5, keep_mode=True)
    assert action == pytest.approx([-0.5 * 0.5, (place["puck_y"] - 0.1) * 0.1, 0, 0])


def test_it_goes_home_when_the_puck_leaves() -> None:
    obs = state(x=-3.4, y=0.1, puck_x=2, puck_y=2, puck_vx=0.5)
    assert scripted_action(obs, 0.0, 0.5, keep_mode=True) == pytest.approx([-0.1 * 0.5, -0.1 * 0.1, 0, 0])
    assert scripted_action(obs, 0.0, 10.0, keep_mode=True) == pytest.approx([-1, -0.1 * 2, 0, 0])


def test_it_brakes_when_it_is_nearly_there() -> None:
    """0.05 m at 1 m/s is less than 0.1 s; 0.3 rad at 0.5 rad/s is less than 1 s."""
    obs = state(x=-3.55, vx=1.0, puck_vx=1.0, angle=-0.3, spin=0.5)
    assert scripted_action(obs, 0.0, 0.5, keep_mode=True) == pytest.approx(
        [0.05 * 0.5 - 1.0 * 0.5, 0, 0.3 * 0.25 - 0.5 * 0.5, 0]
    )
    slower = state(x=-3.55, vx=0.4, puck_vx=1.0)
    assert scripted_action(slower, 0.0, 0.5, keep_mode=True)[0] == pytest.approx(0.05 * 0.5)


def test_it_swings_its_racket() -> None:
    action = scripted_action(state(x=-3.5, angle=0.1, puck_vx=1), math.pi / 2, 0.5, keep_mode=True)
    assert action[2] == pytest.approx((math.pi / 3 - 0.1) * 0.25)


@pytest.mark.parametrize(("counter", "shot"), [(0, 0), (1, 1), (6, 1), (7, 0), (15, 0)])
def test_it_shoots_late(counter: int, shot: int) -> None:
    assert scripted_action(state(own=counter), 0.0, 0.5, keep_mode=True)[3] == shot
    assert len(scripted_action(state(own=counter)[:16], 0.0, 0.5, keep_mode=False)) == 3


def test_a_speed_that_the_offset_cancels_does_no_harm() -> None:
    assert np.isfinite(scripted_action(state(x=-3.5, vx=-0.01, spin=-0.01), 0.0, 10.0, keep_mode=True)).all()


def test_the_originals_bot_draws_from_numpys_global_numbers() -> None:
    np.random.seed(3)
    bot = BasicOpponent(weak=False)
    found = [bot.act(np.array(state(x=-3.5, puck_vx=1))) for _ in range(3)]
    np.random.seed(3)
    phase = np.random.uniform(0, np.pi)
    for action in found:
        phase += np.random.uniform(0, 0.2)
        assert action.shape == (4,) and action[2] == min(max(math.pi / 3 * math.sin(phase) * 5, -1), 1)
    assert BasicOpponent(keep_mode=False).act(np.zeros(16)).shape == (3,)


def test_the_originals_bot_shows_its_thoughts(capsys: pytest.CaptureFixture[str]) -> None:
    BasicOpponent().act(np.zeros(18), verbose=True)
    assert "action" in capsys.readouterr().out


# --- opponents by name -----------------------------------------------------------------------------------------


def episode(opponent: Opponent, seed: int, steps: int = 20) -> list[list[float]]:
    opponent.start_episode(seed)
    obs = np.array(state(x=-3.0, puck_vx=1))
    return [opponent.act(obs).tolist() for _ in range(steps)]


@pytest.mark.parametrize("spec", ["weak", "strong", "random", "none", {"weak": 1, "random": 2, "none": 0.5}])
def test_an_opponent_forgets_the_episode_before(spec: Any) -> None:
    used, fresh = make_opponent(spec), make_opponent(spec)
    assert isinstance(used, Opponent)
    for seed in range(5):
        episode(used, 100 + seed, 3 + seed)
        np.random.seed(seed)
        actions = episode(used, seed)
        assert actions == episode(fresh, seed) == episode(copy.deepcopy(used), seed)
        assert np.shape(actions) == (20, 4) and np.abs(actions).max() <= 1


def test_the_names() -> None:
    kinds = {name: type(make_opponent(name)) for name in ("weak", "strong", "random", "none")}
    assert kinds == {
        "weak": ScriptedOpponent,
        "strong": ScriptedOpponent,
        "random": RandomOpponent,
        "none": NoOpponent,
    }
    assert all(make_opponent(name).name == name for name in kinds)
    assert episode(make_opponent("none"), 0) == [[0.0] * 4] * 20
    assert episode(make_opponent("weak"), 0) != episode(make_opponent("strong"), 0)
    assert episode(make_opponent("random"), 0) != episode(make_opponent("random"), 1)


def test_a_mixture_is_drawn_by_its_weights() -> None:
    mixture = make_opponent({"weak": 0.55, "strong": 0.45, "none": 0})
    drawn: Counter[str] = Counter()
    for seed in range(2000):
        mixture.start_episode(seed)
        drawn[mixture.name] += 1
    assert drawn["none"] == 0
    assert drawn["weak"] / 2000 == pytest.approx(0.55, abs=0.04), "standard error 0.011"


def test_weights_need_not_sum_to_one() -> None:
    one, two = make_opponent({"weak": 0.3, "strong": 0.1}), make_opponent({"weak": 3, "strong": 1})
    assert [episode(one, seed) for seed in range(20)] == [episode(two, seed) for seed in range(20)]
    only = make_opponent({"weak": 0.0, "random": 2.0})
    only.start_episode(1)
    assert only.name == "random"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("weka", ["'weka'", "did you mean 'weak'"]),
        ("x", ["'x'", "weak, strong, random, none"]),
        ({"weak": 1, "strnog": 1}, ["'strnog'", "did you mean 'strong'"]),
        ({"weak": -1}, ["'weak'", "-1", "≥ 0"]),
        ({"weak": math.nan}, ["'weak'", "nan"]),
        ({"weak": math.inf}, ["'weak'", "inf"]),
        ({"weak": "many"}, ["'weak'", "'many'"]),
        ({"weak": True}, ["'weak'", "True"]),
        ({"weak": 0, "strong": 0}, ["above 0"]),
        ({}, ["above 0"]),
        ({1: 1.0}, ["1 is not known"]),
        (None, ["None", "weak, strong"]),
        (0.5, ["0.5", "weak, strong"]),
    ],
)
def test_what_cannot_be_an_opponent_is_refused(spec: Any, words: list[str]) -> None:
    with pytest.raises(EnvironmentSpecError) as caught:
        make_opponent(spec)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_another_kind_of_opponent_can_be_given_or_found_by_name() -> None:
    class Still(NoOpponent):
        name = "still"

    still = Still()
    assert make_opponent(still) is still
    mixture = make_opponent({"still": 1.0, "weak": 0.0}, find=lambda name: still if name == "still" else None)
    mixture.start_episode(0)
    assert isinstance(mixture, MixedOpponent) and mixture.name == "still"
    with pytest.raises(EnvironmentSpecError, match="'still2'"):
        make_opponent("still2", find=lambda name: None)


# --- a user ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("player", "keys", "action"),
    [
        (1, [], 0),
        (1, ["K_LEFT"], 1),
        (1, ["K_RIGHT"], 2),
        (1, ["K_DOWN"], 3),
        (1, ["K_UP"], 4),
        (1, ["K_w"], 5),
        (1, ["K_s"], 6),
        (1, ["K_SPACE"], 7),
        (1, ["K_LEFT", "K_SPACE"], 7),
        (1, ["K_LEFT", "K_RIGHT", "K_UP"], 2),
        (2, ["K_LEFT"], 2),
        (2, ["K_RIGHT"], 1),
        (2, ["K_DOWN"], 4),
        (2, ["K_UP"], 3),
    ],
)
def test_a_person_plays_with_the_keyboard(
    player: int, keys: list[str], action: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import pygame

    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = HockeyEnv()
    try:
        person = HumanOpponent(env, player=player)
        assert env.screen is not None and "space" in capsys.readouterr().out
        pressed = {getattr(pygame, key) for key in keys}

        class Keys:
            def __getitem__(self, key: int) -> bool:
                return key in pressed

        monkeypatch.setattr(pygame.key, "get_pressed", Keys)
        assert person.act(np.zeros(18)) == env.discrete_to_continous_action(action)
    finally:
        env.close()


# --- strength ------------------------------------------------------------------------------------------------------

EPISODES = 500


# Player one wins, draws, loses, and the mean length, as measured on the original with 500 episodes each.
@pytest.mark.parametrize(
    ("one", "two", "shares", "length"),
    [
        ("weak", "strong", (0.178, 0.432, 0.390), 167.4),
        ("strong", "weak", (0.380, 0.476, 0.144), 174.6),
        ("weak", "weak", (0.204, 0.616, 0.180), 195.5),
        ("strong", "strong", (0.302, 0.376, 0.322), 152.8),
    ],
)
def test_the_bots_are_as_strong_as_the_originals(one: str, two: str, shares: Any, length: float) -> None:
    env, player1, player2 = HockeyEnv(), make_opponent(one), make_opponent(two)
    winners: Counter[int] = Counter()
    steps = 0
    for seed in range(EPISODES):
        player1.start_episode(2 * seed)
        player2.start_episode(2 * seed + 1)
        obs, _ = env.reset(one_starting=seed % 2 == 0, seed=seed)
        done = False
        while not done:
            obs, _, done, _, _ = env.step(np.concatenate((player1.act(obs), player2.act(env.obs_agent_two()))))
            steps += 1
        winners[env.winner] += 1
    found = [winners[winner] / EPISODES for winner in (1, 0, -1)]
    assert found == pytest.approx(shares, abs=0.10), "a share's standard error is 0.02"
    assert steps / EPISODES == pytest.approx(length, abs=20)
