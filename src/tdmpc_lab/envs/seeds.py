"""Which seed each episode gets: a pure function of the experiment's seed and the episode's place in it."""

from __future__ import annotations

import numpy as np

_EVALUATION_STREAM = 0x6576616C  # "eval" in ASCII; keeps the hash input apart from any environment index


def training_seed(seed: int, env_index: int, episode_index: int) -> int:
    """Seed of training episode `episode_index` (from 0) of environment `env_index`; even and below 2³¹.

    It depends on no other environment, so that one that resets earlier or later changes nothing elsewhere.
    """
    return 2 * _thirty_bits([seed, env_index, episode_index])


def evaluation_seeds(seed: int, episodes: int) -> list[int]:
    """Seeds of the evaluation episodes: odd, below 2³¹, so no training episode ever has one of them.

    The first seeds of a longer list are those of a shorter one: evaluations of 5 and of 20 episodes share 5.
    """
    return [2 * _thirty_bits([seed, _EVALUATION_STREAM, episode]) + 1 for episode in range(episodes)]


def _thirty_bits(entropy: list[int]) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint32)[0]) >> 2
