"""`rewards`: a few games, and what a spec's reward section makes of them, before a training is spent on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdmpc_lab.app.agents.opponents import SCRIPTED, agent_files, not_known
from tdmpc_lab.app.submit.specs import find_spec
from tdmpc_lab.config.loader import load_spec
from tdmpc_lab.config.phases import phases_of
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.errors import UsageError
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.text import count

if TYPE_CHECKING:
    from tdmpc_lab.training.play import PlayedEpisode


SHOWN = 3
_OUTCOMES = {1: "won", 0: "drawn", -1: "lost", None: "played"}


@dataclass(frozen=True)
class RewardsShown:
    """The episodes in the picture, one row each, and the weights in force."""

    rows: list[dict[str, Any]]
    weights: dict[str, float]
    picture: Path

    def as_dict(self) -> dict[str, Any]:
        """For scripts."""
        return {"episodes": self.rows, "weights": self.weights, "picture": str(self.picture)}


def show_rewards(
    project: Project,
    spec_file: str,
    overrides: Sequence[str],
    *,
    player: str,
    at: int,
    phase: int,
    games: int,
    out: Path | None,
) -> RewardsShown:
    """Play up to `games` episodes and draw up to three of them: raw, shaped and learned reward, step by step.

    `player` plays for the agent (a bot's name); `at` is the number of the training episode that weights which change
    over the training are taken from, `phase` (from 1) the phase that is played, of a spec with phases. Of laser hockey
    a won, a lost and a drawn game are looked for.

    Raises:
        SpecError, EnvironmentSpecError: the spec or its environment is wrong.
        UsageError: a player of that name is not known, or the picture's format.
    """
    out = out or Path(f"{Path(spec_file).stem}_rewards.png")
    if out.suffix not in (".png", ".svg", ".pdf"):
        raise UsageError(f"--out {out}: a picture's name ends in .png, .svg or .pdf")
    spec = load_spec(find_spec(project, spec_file), overrides).spec
    phases = phases_of(spec)
    if phase > len(phases):
        raise UsageError(f"--phase {phase}: the spec has {len(phases)}")
    reward = phases[phase - 1].reward
    shown = _different(_play(project, spec, phase, player, games))
    rewards = [episode.rewards(reward, at) for episode in shown]
    from tdmpc_lab.report.plots import draw_rewards

    titles = [_title(episode, number) for number, episode in enumerate(shown, start=1)]
    draw_rewards(out, [(title, r.raw, r.shaped, r.learned) for title, r in zip(titles, rewards, strict=True)])
    rows = [
        {
            "seed": episode.seed,
            "opponent": episode.opponent,
            "outcome": _OUTCOMES[episode.winner],
            "steps": len(r.raw),
            "return": float(r.raw.sum()),
            "return_shaped": float(r.shaped.sum()),
            "return_backprop": float(r.learned.sum()),
        }
        for episode, r in zip(shown, rewards, strict=True)
    ]
    return RewardsShown(rows, {"scale": reward.scale, **rewards[0].weights}, out)


def _play(project: Project, spec: Spec, phase: int, player: str, games: int) -> list[PlayedEpisode]:
    from tdmpc_lab.envs import has_opponents
    from tdmpc_lab.training.play import play_episodes

    if player not in SCRIPTED and has_opponents(spec.env.id):
        raise UsageError(f"--player {player} {not_known(player, agents=False)}")
    wanted = set(_OUTCOMES) - {None}
    return play_episodes(spec, agent_files(project), phase=phase - 1, player=player, most=games, wanted=wanted)


def _different(episodes: Sequence[PlayedEpisode]) -> list[PlayedEpisode]:
    """Up to three: the first of each outcome, filled up with the first ones that are left."""
    first = list({episode.winner: episode for episode in reversed(episodes)}.values())
    rest = [episode for episode in episodes if episode not in first]
    chosen = [*first, *rest][:SHOWN]
    return [episode for episode in episodes if episode in chosen]


def _title(episode: PlayedEpisode, number: int) -> str:
    against = f" against {episode.opponent}" if episode.opponent else ""
    return f"episode {number}: {_OUTCOMES[episode.winner]}{against}, {count(episode.steps, 'step')}"
