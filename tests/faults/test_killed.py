"""`kill -9` at any moment: what a training is at its end does not tell that it was killed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fault_fixtures import AGENT, PLANNER, Kill, outcome, same, small_spec, train, train_with_kills

from tdmpc_lab.config.schema import (
    BackpropConfig,
    EnvConfig,
    EvalConfig,
    RewardConfig,
    SelfPlayConfig,
    ShapingConfig,
    Spec,
    TrainConfig,
)
from tdmpc_lab.files import read_jsonl

pytestmark = pytest.mark.faults


def hockey_spec() -> Spec:
    """3,000 steps of everything that changes over a training: opponents, a pool of past copies, reward ramps."""
    return Spec(
        name="exact",
        env=EnvConfig(
            id="hockey",
            max_episode_steps=60,
            opponent={"weak": 0.4, "strong": 0.2, "self": 0.4},
            self_play=SelfPlayConfig(from_step=600, every=500, size=2),
        ),
        reward=RewardConfig(shaping=ShapingConfig(), backprop=BackpropConfig()),
        agent=AGENT,
        planner=PLANNER,
        train=TrainConfig(
            steps=3000,
            seed_steps=200,
            envs=3,
            batch_size=4,
            updates_per_step=0.25,
            log_every=100,
            checkpoint_every=170,
            replay_capacity=1500,
            threads=1,
            device="cpu",
        ),
        eval=EvalConfig(every=1000, episodes=1),
    )


@pytest.mark.timeout(400)
def test_three_thousand_steps_killed_at_five_random_points(tmp_path: Path) -> None:
    """The same rows and the same agent, to the last bit, as without a kill; half of the ring has left by the end."""
    spec, draw = hockey_spec(), random.Random(8)
    kills = [Kill("step", step) for step in sorted(draw.sample(range(210, 2990), 5))]
    assert train_with_kills(tmp_path / "killed", spec, kills) == 5
    train(tmp_path / "straight", spec, 1)
    (rows, agent), (expected_rows, expected) = outcome(tmp_path / "killed"), outcome(tmp_path / "straight")
    assert rows == expected_rows
    assert same(agent, expected)
    events, _ = read_jsonl(tmp_path / "killed" / "events.jsonl")
    steps = [event["step"] for event in events if event["event"] == "resumed"]
    assert len(steps) == 5
    assert all(0 <= kill.number - step <= 170 + 3 for kill, step in zip(kills, steps, strict=True))
    assert not any(event["event"] == "episode_dropped" for event in events)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight") / "run"
    train(folder, small_spec(240), 1)
    return folder


@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again_in_the_middle_of_a_change_of_a_file(tmp_path: Path, straight: Path, seed: int) -> None:
    """Nine kills a run: while a row, an event, episodes or a checkpoint are half written, renamed or removed."""
    draw = random.Random(seed)
    kills = [Kill("file", draw.randint(1, 24)) for _ in range(7)] + [Kill("update", draw.randint(1, 40)) for _ in "ab"]
    draw.shuffle(kills)
    assert train_with_kills(tmp_path / "run", small_spec(240), kills) >= 7
    (rows, agent), (expected_rows, expected) = outcome(tmp_path / "run"), outcome(straight)
    assert rows == expected_rows
    assert same(agent, expected)
    left = {path.name.partition("_")[0] for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert left == {"step", "episodes"}  # no half written file
