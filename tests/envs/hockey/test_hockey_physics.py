"""Physics against numbers worked out by hand from the constants of the game.

Box2D's step for a free body: v ← (v + dt · F / m) · (1 − dt · damping); the same for torque and spin.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from Box2D import b2Vec2
from hypothesis import given
from hypothesis import strategies as st

from tdmpc_lab.envs.hockey import HockeyEnv, Mode, forces

DT = 0.02
MASS = 58.0
NOTHING = np.zeros(8, np.float32)


def action(**parts: float) -> Any:
    """Both players' actions from parts such as x1, y2, torque1, shoot2."""
    names = ["x1", "y1", "torque1", "shoot1", "x2", "y2", "torque2", "shoot2"]
    assert parts.keys() <= set(names)
    return np.array([parts.get(name, 0.0) for name in names], np.float32)


@pytest.fixture
def env() -> HockeyEnv:
    """A normal game with the puck out of everybody's way."""
    made = HockeyEnv()
    made.reset(one_starting=True, seed=0)
    made.puck.position = (5.0, 2.0)
    return made


def test_the_players_weigh_what_they_should(env: HockeyEnv) -> None:
    one, two, puck = env.player1, env.player2, env.puck
    assert (one.mass, two.mass) == (58.000003814697266, 58.0)
    assert (one.inertia, two.inertia) == (4.578089714050293, 4.578089237213135)
    assert puck.mass == 1.0323623418807983
    assert tuple(one.localCenter) == pytest.approx((-0.122375, 0), abs=1e-6)
    assert tuple(two.localCenter) == pytest.approx((0.122375, 0), abs=1e-6)
    outline = [(0.1, -0.4), (0.1, 0.4), (-0.2, 0.4), (-0.36, 0.2), (-0.42, 0), (-0.36, -0.2), (-0.2, -0.4)]
    np.testing.assert_allclose(one.fixtures[0].shape.vertices, outline, atol=1e-6)


def test_the_bodies_stand_in_the_order_that_trajectories_depend_on(env: HockeyEnv) -> None:
    bodies = list(env.world.bodies)  # in the order of creation
    order = [*env.world_objects, env.goal_player_1, env.goal_player_2, env.player1, env.player2, env.puck]
    assert bodies == order and len(env.world_objects) == 11
    masks = [[(f.filterData.categoryBits, f.filterData.maskBits) for f in body.fixtures] for body in bodies]
    decoration, wall, goal = [(0, 0)], [(0x11, 0x11)], [(0x10, 0x01), (0x10, 0x10)]
    player, puck = [(0x10, 0x11)], [(0x01, 0x10)]
    assert masks == [decoration] * 5 + [wall] * 6 + [goal] * 2 + [player] * 2 + [puck]
    assert [fixture.sensor for fixture in env.goal_player_1.fixtures] == [True, False]
    places = [tuple(body.position) for body in bodies[5:13]]
    x, edge = 245 / 60, 255 / 60
    expected = [
        (5, 7.5),
        (5, 0.5),
        (5 - x, 7.5),
        (5 - x, 0.5),
        (5 + x, 7.5),
        (5 + x, 0.5),
        (5 - edge, 4),
        (5 + edge, 4),
    ]
    np.testing.assert_allclose(places, expected, atol=1e-6)


def test_a_player_speeds_up_from_rest(env: HockeyEnv) -> None:
    env.step(action(x1=1, x2=1))
    speed = DT * 6000 / MASS * (1 - DT * 5)
    assert env.player1.linearVelocity.x == pytest.approx(speed, rel=1e-6)
    assert env.player2.linearVelocity.x == pytest.approx(-speed, rel=1e-6), "player two plays the other way"


def test_a_player_turns_from_rest(env: HockeyEnv) -> None:
    env.step(action(torque1=1, torque2=1))
    inertia = 4.57809 - MASS * 0.122375**2  # about the centre of mass
    spin = DT * 400 / inertia * (1 - DT * 2)
    assert env.player1.angularVelocity == pytest.approx(spin, rel=1e-4)
    assert env.player2.angularVelocity == pytest.approx(spin, rel=1e-4)


@pytest.mark.parametrize("spin", [0.0, 1.0, -1.0])
def test_beyond_sixty_degrees_a_spring_replaces_the_action(env: HockeyEnv, spin: float) -> None:
    env.player1.angle, env.player1.angularVelocity = 1.2, spin
    env.step(action(torque1=1))
    torque = -0.1 * 1.2 * MASS / DT - (0.1 * spin * MASS / DT if spin > 0 else 0.0)
    inertia = 4.57809 - MASS * 0.122375**2
    assert env.player1.angularVelocity == pytest.approx((spin + DT * torque / inertia) * (1 - DT * 10), rel=1e-4)


def test_too_fast_a_player_may_only_brake(env: HockeyEnv) -> None:
    env.player1.linearVelocity = (0.0, 12.0)
    env.step(action(y1=1))
    assert env.player1.linearVelocity.y == pytest.approx(12 * (1 - DT * 20), rel=1e-6)
    env.player1.position, env.player1.linearVelocity = (2, 4), (0.0, 12.0)
    env.step(action(y1=-1))
    assert env.player1.linearVelocity.y == pytest.approx((12 - DT * 6000 / MASS) * (1 - DT * 20), rel=1e-6)


def test_too_fast_a_player_is_not_stopped_at_a_wall_by_a_force_he_may_not_use(env: HockeyEnv) -> None:
    env.player1.position, env.player1.linearVelocity = (2.0, 6.85), (0.0, 11.0)
    forces.push_player(env.player1, 0.0, 1.0, one=True)
    assert env.player1.linearVelocity.y == 11.0


@pytest.mark.parametrize("one", [True, False])
def test_the_middle_strip_throws_a_player_back(env: HockeyEnv, one: bool) -> None:
    player, side = (env.player1, 1) if one else (env.player2, -1)
    player.position, player.linearVelocity = (5 - side * 0.4, 4), (side * 2.0, 0.0)
    env.step(action(x1=1, x2=1))
    force = -2 * 2 * MASS / DT + 0.4 * 2 * MASS / DT
    assert side * player.linearVelocity.x == pytest.approx((2 + DT * force / MASS) * (1 - DT * 20), rel=1e-5)


def test_the_spring_of_the_middle_strip_also_acts_on_the_way_back(env: HockeyEnv) -> None:
    env.player1.position, env.player1.linearVelocity = (4.6, 4), (-2.0, 0.0)
    env.step(NOTHING)
    force = -(4.6 - 5) * -2 * MASS / DT
    assert env.player1.linearVelocity.x == pytest.approx((-2 + DT * force / MASS) * (1 - DT * 20), rel=1e-5)


@pytest.mark.parametrize(
    ("player", "place", "velocity", "part", "axis"),
    [
        ("player1", (1.45, 4.0), (-1.0, 0.5), {"x1": -1}, 0),
        ("player2", (8.55, 4.0), (1.0, 0.5), {"x2": -1}, 0),
        ("player1", (2.0, 6.85), (0.5, 1.0), {"y1": 1}, 1),
        ("player1", (2.0, 1.15), (0.5, -1.0), {"y1": -1}, 1),
        ("player2", (8.0, 6.85), (0.5, 1.0), {"y2": -1}, 1),
        ("player2", (8.0, 1.15), (0.5, -1.0), {"y2": 1}, 1),
    ],
)
def test_at_the_end_of_the_half_speed_and_force_become_zero(
    env: HockeyEnv, player: str, place: Any, velocity: Any, part: dict[str, float], axis: int
) -> None:
    """Quirk: the force does not become minus the old velocity, as one might read; both become zero."""
    body = getattr(env, player)
    body.position, body.linearVelocity = place, velocity
    env.step(action(**part))
    other = 1 - axis
    assert body.linearVelocity[axis] == 0.0
    assert body.linearVelocity[other] == pytest.approx(velocity[other] * (1 - DT * 5), rel=1e-6)


def test_a_puck_slows_down_a_little_and_above_25_hard(env: HockeyEnv) -> None:
    for speed, damping in [(20.0, 0.05), (25.0, 0.05), (26.0, 10.0)]:
        env.puck.position, env.puck.linearVelocity = (5.0, 2.0), (0.0, speed)
        env.step(NOTHING)
        assert env.puck.linearVelocity.y == pytest.approx(speed * (1 - DT * damping), rel=1e-6)


@pytest.mark.parametrize("angle", [0.0, 0.5, -1.0])
def test_a_shot_adds_sixty_metres_a_second(env: HockeyEnv, angle: float) -> None:
    """Not through `step`: there the puck meets the racket in the same step."""
    for one, side in ((True, 1), (False, -1)):
        env.player1.angle = env.player2.angle = angle
        env.puck.position, env.puck.linearVelocity = (5.0, 4.0), (0.0, 0.0)
        forces.shoot_puck(env.puck, env.player1 if one else env.player2, one=one)
        env.world.Step(DT, 180, 60)
        expected = np.array([math.cos(angle), math.sin(angle)]) * side * 60 * (1 - DT * 0.05)
        np.testing.assert_allclose(tuple(env.puck.linearVelocity), expected, rtol=1e-6)


@given(angle=st.floats(-1.5, 1.5), side=st.sampled_from([1, -1]))
def test_the_shot_is_rounded_as_vectors_of_box2d_are(angle: float, side: int) -> None:
    given_force: list[tuple[float, float]] = []

    class Player:
        pass

    class Puck:
        mass = 1.0323623418807983

        def ApplyForceToCenter(self, force: tuple[float, float], wake: bool) -> None:  # noqa: N802
            given_force.append(force)

    player = Player()
    player.angle = angle  # type: ignore[attr-defined]
    forces.shoot_puck(Puck(), player, one=side == 1)
    vector = b2Vec2(math.cos(angle) * side, math.sin(angle) * side) * Puck.mass / DT * 60
    assert given_force == [(vector.x, vector.y)]


@given(x=st.floats(5, 8.3), y=st.floats(0.8, 7.2), aim=st.floats(3.25, 4.75))
def test_the_shot_at_the_goal_is_rounded_as_vectors_of_box2d_are(x: float, y: float, aim: float) -> None:
    given_force: list[tuple[float, float]] = []

    class Puck:
        mass = 1.0323623418807983
        position = b2Vec2(x, y)

        def ApplyForceToCenter(self, force: tuple[float, float], wake: bool) -> None:  # noqa: N802
            given_force.append(force)

    forces.shoot_puck_at(Puck(), (0.0, aim))
    way = Puck.position - b2Vec2(0, aim)
    vector = -(way / way.length) * 60 * Puck.mass / DT
    assert given_force == [(vector.x, vector.y)]


def test_in_defense_training_the_puck_flies_at_the_goal() -> None:
    env = HockeyEnv(mode=Mode.TRAIN_DEFENSE)
    for seed in range(20):
        obs, _ = env.reset(seed=seed)
        assert 0 <= obs[12] <= 10 / 3 and -3.2 <= obs[13] <= 3.2
        assert obs[14:16].tolist() == [0, 0], "the shot acts in the first step"
        if abs(obs[13]) > 3.0:
            continue  # the puck begins inside a wall, which throws it out
        env.player2.position = (8.9, 4)  # out of the way
        start = obs[12:14] + np.array([5, 4])
        obs, *_ = env.step(NOTHING)
        speed = math.hypot(*obs[14:16])
        assert speed == pytest.approx(60 * (1 - DT * 0.05), rel=1e-5)
        aim = start[1] - start[0] * obs[15] / obs[14]  # where it would cross x = 0
        assert abs(aim - 4) <= 0.6 * 1.25 + 1e-4


def test_places_at_the_start() -> None:
    env = HockeyEnv()
    for seed in range(30):
        for one_starting, low, high in ((True, -2, -1), (False, 1, 2)):
            obs, _ = env.reset(one_starting=one_starting, seed=seed)
            assert obs[[0, 1, 6, 7]].tolist() == [-3, 0, 3, 0]
            assert low <= obs[12] <= high and -1 <= obs[13] <= 1
        obs, _ = env.reset(mode=Mode.TRAIN_SHOOTING, one_starting=False, seed=seed)
        assert -2 <= obs[12] <= -1 and -1 <= obs[13] <= 1
        assert -1 / 3 - 1e-6 <= obs[6] <= 14 / 3 + 1e-6 and -2 <= obs[7] <= 2
        env.mode = Mode.NORMAL


def test_random_numbers_are_drawn_one_by_one_in_order() -> None:
    env, rng = HockeyEnv(), np.random.default_rng(11)
    env.reset(one_starting=False, seed=11)
    expected = 5 + rng.uniform(1, 2), 4 + rng.uniform(-1, 1)
    assert tuple(env.puck.position) == tuple(np.float32(expected))

    env, rng = HockeyEnv(mode="TRAIN_DEFENSE"), np.random.default_rng(12)
    env.reset(seed=12)
    two = 8 + rng.uniform(-10 / 3, 10 / 6), 4 + rng.uniform(-2, 2)
    puck = 5 + rng.uniform(0, 10 / 3), 4 + 0.8 * rng.uniform(-4, 4)
    assert tuple(env.player2.position) == tuple(np.float32(two))
    assert tuple(env.puck.position) == tuple(np.float32(puck))


def test_a_goal_counts_one_step_after_the_puck_went_in(env: HockeyEnv) -> None:
    """The sensor begins at 9.083; the puck's radius is 0.217."""
    env.puck.position, env.puck.linearVelocity = (8.6, 4.0), (10.0, 0.0)
    env.player2.position = (7.0, 2.0)
    seen = []
    for _ in range(3):
        _, reward, done, _, info = env.step(NOTHING)
        seen.append((round(env.puck.position.x, 2), done, info["winner"], reward))
    assert seen == [(8.8, False, 0, 0.0), (9.0, False, 0, 0.0), (9.2, True, 1, 10.0)]


def test_both_goals_count_for_the_right_player(env: HockeyEnv) -> None:
    env.puck.position, env.puck.linearVelocity = (1.3, 4.0), (-10.0, 0.0)
    env.player1.position = (3.0, 2.0)
    for _ in range(3):
        _, reward, done, _, info = env.step(NOTHING)
    assert done and info["winner"] == -1 and env.get_info_agent_two()["winner"] == 1
    assert reward == -10 + info["reward_closeness_to_puck"] and info["reward_closeness_to_puck"] < 0
    assert env.get_reward_agent_two(env.get_info_agent_two()) == 10.0


def test_the_players_stay_in_their_halves_and_the_puck_in_the_rink() -> None:
    env, rng = HockeyEnv(), np.random.default_rng(0)
    for seed in range(200):
        env.reset(one_starting=seed % 2 == 0, seed=seed)
        held = rng.uniform(-1, 1, 8)
        done = False
        while not done:
            if rng.random() < 0.1:
                held = rng.uniform(-1, 1, 8)
            obs, reward, done, _, info = env.step(held)
            two = env.obs_agent_two()
            numbers = [*obs, *two, reward, *info.values(), *env.get_info_agent_two().values()]
            assert np.isfinite(numbers).all()
            assert np.abs(obs[[0, 6, 12]]).max() < 5 and np.abs(obs[[1, 7, 13]]).max() < 4
            assert obs[0] < 0.6 and obs[6] > -0.6
