"""`eval` and `rewards`: looking at an agent's games and at what it learns from."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from tdmpc_lab.cli.common import find_job_id, project_here
from tdmpc_lab.cli.output import print_json

if TYPE_CHECKING:
    from tdmpc_lab.app.evaluate import Report

OK = 0


def evaluate(args: Namespace) -> int:
    """`eval JOB|CHECKPOINT|SPEC`."""
    from tdmpc_lab.app.evaluate import evaluate as run

    project = project_here()
    report = run(
        project,
        find_job_id(project, args.target),
        opponents=args.opponent or [],
        episodes=args.episodes,
        mode="policy" if args.policy else "plan",
        video=None if args.video is None else Path(args.video),
        device=args.device,
        progress=_progress,
    )
    if args.json:
        print_json(report.as_dict())
    else:
        _show(report, policy=args.policy)
    return OK


def _progress(done: int, of: int) -> None:
    print(f"{done}/{of} episodes", file=sys.stderr, flush=True)


def _show(report: Report, *, policy: bool) -> None:
    from tdmpc_lab.cli.tables import print_evaluation

    how = "policy only" if policy else "planning"
    each = report.rows[0]["episodes"]
    games = f"{each:,} games against each, half of them started by the agent" if "win" in report.rows[0] else ""
    print(f"{report.target.words}, {how}: {games or f'{each:,} episodes'}")
    print_evaluation(report.rows)
    if report.video is not None:
        print(f"video: {report.video}")
    if report.target.job is not None:
        print(f"kept in {report.target.job.evals}; also told in the job's note and to MLflow")


def rewards(args: Namespace) -> int:
    """`rewards SPEC`."""
    from tdmpc_lab.app.rewards import show_rewards

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
