"""Episodes played by a bot in the agent's place, to look at their rewards."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from tdmpc_lab.config.schema import RewardConfig, Spec
from tdmpc_lab.envs import ControlEnv, EpisodeSetting, evaluation_seeds, has_opponents
from tdmpc_lab.envs.hockey.opponents import Opponent, make_opponent
from tdmpc_lab.training.opponents import OpponentFiles
from tdmpc_lab.training.recorder import EpisodeRecorder
from tdmpc_lab.training.rewards import EpisodeRewards, check_reward_terms
from tdmpc_lab.training.worlds import Worlds


@dataclass(frozen=True, eq=False)
class PlayedEpisode:
    """One finished episode."""

    seed: int
    recorder: EpisodeRecorder

    @property
    def winner(self) -> int | None:
        """Of a game: 1 the player, −1 the opponent, 0 nobody."""
        winner = self.recorder.summary.get("winner")
        return None if winner is None else int(winner)

    @property
    def opponent(self) -> str | None:
        """Of a game: who was played against."""
        return self.recorder.summary.get("opponent")

    @property
    def steps(self) -> int:
        """T."""
        return int(self.recorder.summary["episode_length"])

    def rewards(self, config: RewardConfig, episode: int) -> EpisodeRewards:
        """As the replay would get them, were this training episode number `episode`."""
        return self.recorder.rewards(config, episode)


def play_episodes(
    spec: Spec, opponents: OpponentFiles, *, phase: int, player: str, most: int, wanted: Collection[int | None]
) -> list[PlayedEpisode]:
    """Play up to `most` episodes of one phase (from 0) of a spec, fewer once all outcomes in `wanted` were seen.

    `player` is the name of a bot, which plays for the agent in laser hockey; other environments get random actions.

    Raises:
        EnvironmentSpecError: the environment can't be made, does not tell what the rewards need, or no such bot.
        TrainingError: the environment fails.
    """
    bot = make_opponent(player) if has_opponents(spec.env.id) else None
    worlds = Worlds(spec, opponents)
    env = worlds.make(EpisodeSetting(phase=phase))
    episodes: list[PlayedEpisode] = []
    try:
        check_reward_terms(env, spec.env.id, worlds.phases[phase].reward)
        for seed in evaluation_seeds(spec.train.seed, most):
            episodes.append(PlayedEpisode(seed, _play(env, seed, bot)))
            if set(wanted) <= {episode.winner for episode in episodes}:
                break
    finally:
        env.close()
    return episodes


def _play(env: ControlEnv, seed: int, bot: Opponent | None) -> EpisodeRecorder:
    """One episode, by the bot or with random actions, both drawn from its seed."""
    obs = env.reset(seed)
    rng = np.random.default_rng(seed)
    recorder = EpisodeRecorder(obs)
    if bot is not None:
        bot.start_episode(seed)
    while not recorder.done:
        action = rng.uniform(-1, 1, env.action_dim) if bot is None else bot.act(obs.astype(np.float64))
        result = env.step(action.astype(np.float32))
        recorder.add(action.astype(np.float32), result)
        obs = result.obs
    return recorder
