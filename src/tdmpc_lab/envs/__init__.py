"""Environments as the trainer sees them: float32 vectors in, actions in [−1, 1] out, one seed per episode.

Any gymnasium environment with continuous actions and vector observations becomes a `ControlEnv`; an
`EnvGroup` steps several copies side by side. gymnasium itself is imported when an environment is made.
"""

from __future__ import annotations

from tdmpc_lab.envs.control import ControlEnv, GymnasiumEnv, MirrorSigns, StepResult
from tdmpc_lab.envs.group import EnvGroup, EpisodeSetting, evaluation_seeds, training_seed
from tdmpc_lab.envs.make import has_opponents, make_env

__all__ = [
    "ControlEnv",
    "EnvGroup",
    "EpisodeSetting",
    "GymnasiumEnv",
    "MirrorSigns",
    "StepResult",
    "evaluation_seeds",
    "has_opponents",
    "make_env",
    "training_seed",
]
