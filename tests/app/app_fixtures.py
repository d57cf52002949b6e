"""Specs that train for seconds, and a user's environment that can be told to fail."""

from __future__ import annotations

from pathlib import Path

QUICK = """\
about: a few steps, to see everything move
env: {id: Pendulum-v1, max_episode_steps: 20}
agent: {latent_dim: 16, hidden_dim: 16, hidden_layers: 1, termination_dim: 8, horizon: 3, q_heads: 2, bins: 21}
planner: {samples: 8, iterations: 1, elites: 4, policy_trajectories: 2}
train: {steps: 80, seed_steps: 40, batch_size: 4, log_every: 20, threads: 1, device: cpu, checkpoint_every: 50}
eval: {every: 40, episodes: 2}
"""

USER_ENV = '''\
"""An environment of the user's own: fails, exits or crashes at a given step of its life, or is slow."""
import os, signal, time
import gymnasium
import numpy as np


class Moody(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    steps = 0  # of all copies in the process: an evaluation of two episodes adds 40, and 40 by the policy alone

    def __init__(self, fail_at=None, kill_at=None, exit_at=None, slow=0.0):
        self.fail_at, self.kill_at, self.exit_at, self.slow = fail_at, kill_at, exit_at, slow

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        Moody.steps += 1
        time.sleep(self.slow)
        if Moody.steps == self.fail_at:
            raise ValueError("the puck left the universe")
        if Moody.steps == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if Moody.steps == self.exit_at:
            os._exit(3)
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), 0.5, False, False, {}


gymnasium.register("Moody-v0", Moody, max_episode_steps=20)
'''


def write_specs(root: Path) -> None:
    """`quick.yaml` and `moody.yaml` in the project's experiments, and the user's module beside them."""
    (root / "experiments" / "quick.yaml").write_text(QUICK)
    moody = QUICK.replace("{id: Pendulum-v1, max_episode_steps: 20}", "{id: 'moody_env:Moody-v0'}")
    (root / "experiments" / "moody.yaml").write_text(moody.replace("a few steps", "an environment with moods"))
    (root / "moody_env.py").write_text(USER_ENV)
