"""`play`: watch a trained agent in a window, or play against it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tdmpc_lab.app.agents.evaluate import Target, load_target
from tdmpc_lab.app.agents.opponents import HUMAN, agent_files, check_option, told_of_option
from tdmpc_lab.config.phases import Mode
from tdmpc_lab.errors import ExternalError, UsageError
from tdmpc_lab.jobs.paths import Project

if TYPE_CHECKING:
    from tdmpc_lab.envs import ControlEnv
    from tdmpc_lab.envs.hockey.opponents import Opponent
    from tdmpc_lab.training.load import LoadedAgent


@dataclass(frozen=True)
class Game:
    """One episode that was shown."""

    total: float  # undiscounted return of the agent
    length: int  # steps
    winner: int | None  # 1 the agent, −1 the opponent, 0 nobody; None where it is no game
    opponent: str | None


def play(
    project: Project, target: str, *, opponent: str | None, games: int, mode: Mode, device: str, seed: int
) -> Iterator[Game]:
    """Show `games` episodes of the agent in a window, one after another; yields each one's result.

    `opponent` is a bot, a job id, a checkpoint, or `human` for the keyboard.

    Raises:
        UsageError: no such agent; an opponent that is not known, or one for an environment that has none.
        CheckpointError, EnvironmentSpecError: an agent can't be read, or plays another game.
        ExternalError: there is no display.
        TrainingError: the environment fails.
    """
    from tdmpc_lab.envs import has_opponents

    _require_display()
    found = load_target(project, target, device, "play")
    env_id = found.loaded.spec.env.id
    if opponent is not None and not has_opponents(env_id):
        raise UsageError(f"--opponent: '{env_id}' is played alone; leave it out")
    if opponent is not None:
        check_option(project, opponent, human=True)
    with told_of_option(given=opponent is not None):
        env = _windowed(project, found, opponent, device)
    try:
        for number in range(games):
            yield _show(env, found.loaded, mode, seed + number)
    finally:
        env.close()


def _windowed(project: Project, target: Target, opponent: str | None, device: str) -> ControlEnv:
    from tdmpc_lab.envs import has_opponents, make_env
    from tdmpc_lab.envs.hockey.rendering import KeyboardPlayer
    from tdmpc_lab.training.opponents import AgentOpponents, evaluation_opponents

    loaded = target.loaded
    agents = AgentOpponents(
        agent_files(project, None if opponent else target.job),
        device=device,
        observation_dim=loaded.made_of["observation_dim"],
        action_dim=loaded.made_of["action_dim"],
    )

    def find(name: str) -> Opponent | None:
        return KeyboardPlayer() if name == HUMAN else agents.find(name)

    config = loaded.spec.env
    if has_opponents(config.id):  # by default one of those that the agent is evaluated against
        config = replace(config, opponent=opponent or evaluation_opponents([config])[0])
    return make_env(config, find_opponent=find, render_mode=HUMAN)


def _show(env: ControlEnv, loaded: LoadedAgent, mode: Mode, seed: int) -> Game:
    agent = loaded.agent
    state = agent.plan_state(1, seed=seed)
    total, length = 0.0, 0
    obs, over = env.reset(seed), False
    while not over:
        row = obs[None]  # one environment
        (action,) = agent.act_prior(row) if mode == "policy" else agent.act(row, state, explore=False)
        result = env.step(action)
        obs, total, length = result.obs, total + result.reward, length + 1
        over = result.terminated or result.truncated
    winner = result.info.get("winner")
    return Game(total, length, None if winner is None else int(winner), result.info.get("opponent"))


def _require_display() -> None:
    """SDL draws into the void where there is none, and says nothing."""
    if sys.platform == "linux" and not any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"))):
        raise ExternalError(
            "no window can be opened here: there is no display. Use a machine with one (over ssh: ssh -X), or make a "
            "film: tdmpc-lab eval … --video FILE.mp4"
        )
