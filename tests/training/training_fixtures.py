"""Small specs and a user's own environment for the training loop's tests."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium
import numpy as np

from memory_sink import MemorySink
from tdmpc_lab.config.schema import AgentConfig, EnvConfig, EvalConfig, PlannerConfig, Spec, TrainConfig
from tdmpc_lab.training.build import build_trainer

AGENT = AgentConfig(latent_dim=16, hidden_dim=16, hidden_layers=1, termination_dim=8, horizon=3, q_heads=2, bins=21)
PLANNER = PlannerConfig(samples=16, iterations=1, elites=4, policy_trajectories=2)
RATES = ("wall_s", "steps_per_s", "checkpoint_s", "attempt")


class Countdown(gymnasium.Env):
    """The state counts up from a random start; the task terminates at `goal`, so episodes have many lengths."""

    observation_space = gymnasium.spaces.Box(-100, 100, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-2, 2, (1,), np.float32)

    def __init__(self, goal: int = 12) -> None:
        self.goal = goal

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.count = int(self.np_random.integers(0, self.goal // 2))
        return self._obs(), {}

    def step(self, action):
        self.count += 1
        return self._obs(), float(action[0]), self.count >= self.goal, False, {}

    def _obs(self):
        return np.array([self.count, self.goal], dtype=np.float32)


class Tilted(Countdown):
    """The same with a mirror symmetry declared: what is paid does not depend on the action's sign."""

    mirror_signs = ((1, 1), (-1,))

    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, abs(reward), *rest


gymnasium.register("Countdown-v0", Countdown, max_episode_steps=10)
gymnasium.register("Tilted-v0", Tilted, max_episode_steps=10)


def spec(env: str = "Pendulum-v1", *, evaluate: bool = False, agent: AgentConfig = AGENT, **train: Any) -> Spec:
    defaults: dict[str, Any] = {
        "steps": 120,
        "seed_steps": 70,
        "batch_size": 4,
        "log_every": 20,
        "threads": 1,
    }
    return Spec(
        name="test",
        env=EnvConfig(id=env, max_episode_steps=25 if env == "Pendulum-v1" else None),
        agent=agent,
        planner=PLANNER,
        train=TrainConfig(**(defaults | {"device": "cpu"} | train)),
        eval=EvalConfig(every=30, episodes=2) if evaluate else None,
    )


def run(a_spec: Spec, **kwargs: Any):
    """Train to the end; the trainer and its rows."""
    sink = kwargs.pop("sink", None) or MemorySink()
    trainer = build_trainer(a_spec, sink=sink, **kwargs)
    result = trainer.run()
    return trainer, result, sink.rows if isinstance(sink, MemorySink) else None


def comparable(rows):
    """Rows without what may differ between two runs: times and rates."""
    return [{k: v for k, v in row.items() if k not in RATES} for row in rows]


def with_train(a_spec: Spec, **changes: Any) -> Spec:
    return dataclasses.replace(a_spec, train=dataclasses.replace(a_spec.train, **changes))
