"""Several copies of an environment stepped side by side, each in an episode of its own.

Also here: which seed each episode gets: a pure function of the experiment's seed and the episode's place in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from tdmpc_lab.envs.control import ControlEnv, FloatArray, StepResult
from tdmpc_lab.errors import CheckpointError, EnvironmentSpecError, TrainingError

_NOT_STARTED = -1


class EpisodeSetting(NamedTuple):
    """What an episode is played in, beside its seed. It is fixed when the episode begins."""

    phase: int = 0
    """Index of the curriculum's phase."""
    copies: int = 0
    """How many copies of itself the agent had made for its pool by then."""


class EnvGroup:
    """N environments. Shapes: N environments, A action_dim, O observation_dim.

    An environment that ended its episode waits for `reset_one`; nothing is reset behind the trainer's back.
    """

    def __init__(self, make: Callable[[EpisodeSetting], ControlEnv], count: int, seed: int) -> None:
        """Make `count` environments (≥ 1). `seed` is the experiment's; see `seeds.training_seed`.

        `make` is called again for an environment whose next episode has another `setting`.
        """
        self._seed = seed
        self._make = make
        self.setting = EpisodeSetting()
        """What episodes that begin from now on are played in."""
        self._settings = [self.setting] * count
        self._envs: list[ControlEnv] = []
        try:
            for _ in range(count):
                self._envs.append(make(self.setting))
        except Exception:
            self.close()
            raise
        first = self._envs[0]
        self.observation_dim = first.observation_dim
        self.action_dim = first.action_dim
        self.mirror_signs = first.mirror_signs
        self.episode_length = first.episode_length
        self._episodes = [_NOT_STARTED] * count
        self._actions: list[list[FloatArray]] = [[] for _ in range(count)]
        self._obs = np.zeros((count, self.observation_dim), dtype=np.float32)

    def __len__(self) -> int:
        return len(self._envs)

    @property
    def observations(self) -> FloatArray:
        """The latest observation of every environment, (N, O); a copy. Zeros before the first reset."""
        return self._obs.copy()

    def episode_index(self, index: int) -> int:
        """Number of the running episode of environment `index`, from 0; −1 before the first reset."""
        return self._episodes[index]

    def episode_setting(self, index: int) -> EpisodeSetting:
        """What the running episode of environment `index` is played in."""
        return self._settings[index]

    def episode_seed(self, index: int) -> int:
        """Seed of the running episode of environment `index`."""
        return training_seed(self._seed, index, self._episodes[index])

    def reset_all(self) -> FloatArray:
        """Start the next episode in every environment; returns the first observations, (N, O)."""
        for index in range(len(self)):
            self.reset_one(index)
        return self.observations

    def reset_one(self, index: int) -> FloatArray:
        """Start the next episode of environment `index`; returns its first observation, (O,)."""
        return self._start(index, self._episodes[index] + 1, self.setting).copy()

    def step(self, actions: FloatArray) -> list[StepResult]:
        """Step the first k environments with `actions`, (k, A), k ≤ N; one result each."""
        if actions.ndim != 2 or actions.shape[0] > len(self):
            raise TrainingError(
                f"actions of shape {actions.shape} were given to {len(self)} environments; "
                f"(k, {self.action_dim}) with k ≤ {len(self)} is needed"
            )
        return [self._step_one(index, action) for index, action in enumerate(actions)]

    def close(self) -> None:
        """Close every environment."""
        for env in self._envs:
            env.close()

    def state_dict(self) -> dict[str, Any]:
        """Where every environment stands: integers, lists and numpy arrays only.

        The state of a physics engine can't be read out, so an episode is kept as its number and its actions.
        """
        return {
            "seed": self._seed,
            "envs": [
                {
                    "episode": self._episodes[index],
                    "setting": list(self._settings[index]),
                    "actions": np.array(self._actions[index], dtype=np.float32).reshape(-1, self.action_dim),
                    "observation": self._obs[index].copy(),
                }
                for index in range(len(self))
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> list[int]:
        """Bring every environment back to where it stood, by running the actions of its episode again.

        Returns the indices of the environments where that led to another observation than the one stored
        (another version of a library, or an environment that is not deterministic); each of them has started
        its next episode instead. Raises CheckpointError when the state belongs to another group.
        """
        self._check_fits(state)
        differing = []
        for index, saved in enumerate(state["envs"]):
            episode = int(saved["episode"])
            if episode == _NOT_STARTED:
                self._episodes[index] = _NOT_STARTED
                self._actions[index] = []
                self._obs[index] = 0.0
            elif not self._replay(
                index, episode, EpisodeSetting(*saved["setting"]), saved["actions"], saved["observation"]
            ):
                self._start(index, episode + 1, self.setting)
                differing.append(index)
        return differing

    def _start(self, index: int, episode: int, setting: EpisodeSetting) -> FloatArray:
        if setting != self._settings[index]:
            self._envs[index].close()
            self._envs[index] = self._make(setting)
            self._settings[index] = setting
        self._episodes[index] = episode
        self._actions[index] = []
        obs = self._envs[index].reset(self.episode_seed(index))
        self._obs[index] = obs
        return obs

    def _step_one(self, index: int, action: FloatArray) -> StepResult:
        result = self._envs[index].step(action)
        self._actions[index].append(np.array(action, dtype=np.float32))
        self._obs[index] = result.obs
        return result

    def _replay(
        self, index: int, episode: int, setting: EpisodeSetting, actions: FloatArray, observation: FloatArray
    ) -> bool:
        """Run a stored episode again; whether it ended where it had, to the last bit."""
        try:
            self._start(index, episode, setting)
            for action in actions:
                self._step_one(index, action)
        except (TrainingError, EnvironmentSpecError):  # it can't be made, raised or ended early: another one is started
            return False
        return bool(np.array_equal(self._obs[index], observation))

    def _check_fits(self, state: Mapping[str, Any]) -> None:
        envs = state["envs"]
        pairs = [("train.seed", state["seed"], self._seed), ("train.envs", len(envs), len(self))]
        for saved in envs:
            pairs.append(("observation length", saved["observation"].shape[-1], self.observation_dim))
            pairs.append(("action length", saved["actions"].shape[-1], self.action_dim))
        wrong = {  # of every environment, each text once
            f"{key} is {found} there and {needed} here": None for key, found, needed in pairs if found != needed
        }
        if wrong:
            raise CheckpointError(
                f"the environments of the checkpoint don't fit the spec: {'; '.join(wrong)}. Resume "
                "with the spec that the checkpoint was made with, or start a new job"
            )


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
