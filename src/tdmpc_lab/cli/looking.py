"""`eval`, `play`, `export`, `rewards`: an agent's games, the agent itself, and what it learns from."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from tdmpc_lab.cli.cleaning import size_text
from tdmpc_lab.cli.common import find_job_id, project_here
from tdmpc_lab.cli.output import print_json
from tdmpc_lab.errors import UsageError
from tdmpc_lab.text import count

if TYPE_CHECKING:
    from tdmpc_lab.app.agents.evaluate import Report

OK = 0
PROGRESS_S = 2.0


def evaluate(args: Namespace) -> int:
    """`eval JOB|CHECKPOINT|SPEC`."""
    from tdmpc_lab.app.agents.evaluate import evaluate as run

    project = project_here()
    report = run(
        project,
        find_job_id(project, args.target),
        opponents=args.opponent or [],
        episodes=args.episodes,
        mode="policy" if args.policy else "plan",
        seed=args.seed,
        video=None if args.video is None else Path(args.video),
        device=args.device,
        progress=_Progress(),
    )
    if args.json:
        print_json(report.as_dict())
    else:
        _show(report, policy=args.policy)
    return OK


class _Progress:
    """Episodes that are done, on standard error: the first and the last line at once, between them one in a while."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, done: int, of: int) -> None:
        now = time.monotonic()
        if done in (0, of) or now >= self._next:
            self._next = now + PROGRESS_S
            print(f"{done}/{count(of, 'episode')}", file=sys.stderr, flush=True)


def _show(report: Report, *, policy: bool) -> None:
    from tdmpc_lab.cli.tables import print_evaluation

    how = "policy only" if policy else "planning"
    each = report.rows[0]["episodes"]
    games = f"{count(each, 'game')} against each, half of them started by the agent" if "win" in report.rows[0] else ""
    print(f"{report.target.words}, {how}: {games or count(each, 'episode')}")
    print_evaluation(report.rows)
    if report.video is not None:
        print(f"video: {report.video}")
    if report.target.job is not None:
        print(f"kept in {report.target.job.evals}; also told in the job's note and to MLflow")


def play(args: Namespace) -> int:
    """`play JOB|CHECKPOINT`: the windows close at the end, and on Ctrl-C."""
    from tdmpc_lab.app.agents.opponents import HUMAN
    from tdmpc_lab.app.agents.play import play as run

    project = project_here()
    if args.human and args.opponent is not None:
        raise UsageError("--human and --opponent name two opponents: give one of them")
    if args.human:
        from tdmpc_lab.envs.hockey.keyboard import KEYS

        print(f"you play on the right: {KEYS}", file=sys.stderr)
    shown = run(
        project,
        find_job_id(project, args.target),
        opponent=HUMAN if args.human else args.opponent,
        games=args.games,
        mode="policy" if args.policy else "plan",
        device=args.device,
        seed=args.seed,
    )
    for number, game in enumerate(shown, start=1):
        won = {1: "won by the agent", 0: "drawn", -1: "lost by the agent"}
        result = "" if game.winner is None else f", {won[game.winner]}"
        against = "" if game.opponent is None else f" against {game.opponent}"
        print(f"game {number}{against}: {count(game.length, 'step')}{result}, return {game.total:.1f}", flush=True)
    return OK


def export(args: Namespace) -> int:
    """`export JOB|CHECKPOINT FOLDER [--training]`."""
    from tdmpc_lab.app.agents.export import export_agent

    project = project_here()
    target = find_job_id(project, args.target)
    done = export_agent(project, target, Path(args.folder), force=args.force, training=args.training)
    more = f" ({size_text(done.networks)} of it the networks)" if args.training else ""
    print(f"{done.path}: the agent of {args.target} at step {done.step:,}, {size_text(done.size)}{more}")
    if args.training:
        print(f"a training that goes on with it: tdmpc-lab submit SPEC train.start_from={args.folder}")
    print(f"its games: tdmpc-lab eval {args.folder}; to watch it: tdmpc-lab play {args.folder}")
    return OK


def rewards(args: Namespace) -> int:
    """`rewards SPEC`."""
    from tdmpc_lab.app.agents.rewards import show_rewards

    shown = show_rewards(
        project_here(),
        args.spec,
        args.overrides,
        player=args.player,
        at=args.at,
        phase=args.phase,
        games=args.episodes,
        out=None if args.out is None else Path(args.out),
    )
    if args.json:
        print_json(shown.as_dict())
        return OK
    from tdmpc_lab.cli.tables import print_rewards

    print_rewards(shown.rows, shown.weights)
    print(f"picture: {shown.picture}")
    return OK
