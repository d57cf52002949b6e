"""`eval`, `play`, `export`, `rewards`, `describe`, `bench`, `compare`: agents, what they learn from, who is better."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from tdmpc_lab.app.agents.bench import run_bench
from tdmpc_lab.app.agents.compare import compare_jobs
from tdmpc_lab.app.agents.describe import describe_spec
from tdmpc_lab.app.agents.evaluate import evaluate as run
from tdmpc_lab.app.agents.export import export_agent
from tdmpc_lab.app.agents.opponents import HUMAN
from tdmpc_lab.app.agents.rewards import show_rewards
from tdmpc_lab.cli.common import (
    OK,
    add_json,
    add_spec_and_sizes,
    count_from_zero,
    find_job_id,
    positive,
    print_json,
    project_here,
)
from tdmpc_lab.errors import UsageError
from tdmpc_lab.streams import as_typed
from tdmpc_lab.text import count, size_text

if TYPE_CHECKING:
    from tdmpc_lab.app.agents.evaluate import EvalReport
    from tdmpc_lab.report.comparison import Comparison


PROGRESS_S = 2.0


def evaluate(args: Namespace) -> int:
    """`eval JOB|CHECKPOINT|SPEC`."""
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
        _show_games(report, policy=args.policy)
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


def _show_games(report: EvalReport, *, policy: bool) -> None:
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
    from tdmpc_lab.app.agents.play import play as run

    project = project_here()
    if args.human and args.opponent is not None:
        raise UsageError("--human and --opponent name two opponents: give one of them")
    if args.human:
        from tdmpc_lab.envs.hockey.rendering import KEYS

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
    project = project_here()
    target = find_job_id(project, args.target)
    done = export_agent(project, target, Path(args.folder), force=args.force, training=args.training)
    more = f" ({size_text(done.networks)} of it the networks)" if args.training else ""
    print(f"{done.path}: the agent of {args.target} at step {done.step:,}, {size_text(done.size)}{more}")
    if args.training:
        print(f"a training that continues with it: tdmpc-lab submit SPEC train.start_from={args.folder}")
    print(f"its games: tdmpc-lab eval {args.folder}; to watch it: tdmpc-lab play {args.folder}")
    return OK


def rewards(args: Namespace) -> int:
    """`rewards SPEC`."""
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


_PICTURES = (".png", ".svg", ".pdf")


def _step(text: str) -> int:
    """`500000`, `500_000`, `500,000` or `5e5`."""
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of steps") from None
    if value != int(value) or value < 0:
        raise argparse.ArgumentTypeError(f"{text} is no number of steps")
    return int(value)


def compare(args: Namespace) -> int:
    """`compare WHAT [WHAT …]`."""
    plot = _file(args.plot, "--plot", _PICTURES)
    page = _file(args.html, "--html", (".html", ".htm"))
    project = project_here()
    found = compare_jobs(
        project,
        args.words,
        metric=args.metric,
        lower=args.lower,
        threshold=args.threshold,
        over=args.over,
        by=args.by,
        until=args.until,
        reference=args.reference,
        alone=args.alone,
    )
    if plot is not None:
        from tdmpc_lab.report.plots import draw_curves

        draw_curves(plot, found)
    if page is not None:
        from tdmpc_lab.app.agents.compare import write_page

        write_page(project, page, found, shlex.join(["tdmpc-lab", *map(as_typed, sys.argv[1:])]))
    _print_compared(found, args)
    for what, file in (("learning curves", plot), ("page", page)):
        if file is not None:
            print(f"{what}: {file}", file=sys.stderr)
    return OK


def _file(text: str | None, option: str, endings: tuple[str, ...]) -> Path | None:
    """The file to write, told to be wrong before anything is read."""
    if text is None:
        return None
    path = Path(text)
    if path.suffix not in endings:
        raise UsageError(f"{option} {text}: its name ends in {' or '.join(endings)}")
    if path.is_dir():
        raise UsageError(f"{option} {text} is a folder; name a file")
    return path


def _print_compared(found: Comparison, args: Namespace) -> None:
    from tdmpc_lab.report.tables import as_dict, csv_text, markdown

    if args.json:
        print_json({**as_dict(found), "plot": args.plot, "html": args.html})
    elif args.csv:
        sys.stdout.write(csv_text(found))
        for line in found.remarks:
            print(line, file=sys.stderr)
    elif args.md:
        sys.stdout.write(markdown(found))
    else:
        _print_figures(found)


def add_compare(p: ArgumentParser) -> None:
    """The words of `compare`."""
    p.description = (
        "Compare experiments, groups or jobs. Jobs that differ by their seed alone are one variant; "
        "figures are interquartile means over its seeds, all at the same environment step."
    )
    p.add_argument(
        "words",
        nargs="*",
        metavar="WHAT",
        help="experiments (a name, a family, a pattern 'back*', a spec file), groups, ids of jobs or arrays, last",
    )
    p.add_argument(
        "--metric", metavar="NAME", help="a value of the evaluations; default: win rate of games, else return"
    )
    p.add_argument("--lower", action="store_true", help="less of the metric is better")
    p.add_argument("--threshold", type=float, metavar="X", help="steps and hours until an evaluation reaches X")
    p.add_argument(
        "--until", type=_step, metavar="STEP", help="compare at this step; default: as far as every variant goes"
    )
    p.add_argument("--reference", metavar="NAME", help="the variant that the others are compared with")
    p.add_argument(
        "--by",
        choices=["config", "code", "job"],
        default="config",
        help="what makes a variant: its config (default), config and code, or every job by itself",
    )
    p.add_argument(
        "--over",
        action="append",
        default=[],
        metavar="KEY",
        help="runs of one variant may differ in this key, as env.id: tasks of one comparison; may be given again",
    )
    p.add_argument("--alone", action="store_true", help="show one variant by itself")
    p.add_argument("--plot", metavar="FILE", help="learning curves, as .png, .svg or .pdf")
    p.add_argument("--html", metavar="FILE", help="one page of all of it, with curves, videos, verdicts and notes")
    form = p.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON document on standard output, nothing else there")
    form.add_argument("--csv", action="store_true", help="one line of plain numbers for each variant")
    form.add_argument("--md", action="store_true", help="Markdown, to paste into a note")
    p.set_defaults(run=compare, rest="words")


def describe(args: Namespace) -> int:
    """`describe SPEC`."""
    report = describe_spec(project_here(), args.spec, args.overrides, args.obs_dim, args.action_dim)
    if args.json:
        print_json(report.as_dict())
    else:
        print(report)
    return OK


def bench(args: Namespace) -> int:
    """`bench [SPEC]`."""
    if args.spec is None and (args.no_reference or args.obs_dim is not None or args.action_dim is not None):
        raise UsageError("bench: a spec is needed for --no-reference, --obs-dim and --action-dim")
    result = run_bench(
        None if args.spec is None else project_here(),
        args.spec,
        args.overrides,
        args.obs_dim,
        args.action_dim,
        repeats=args.repeats,
        reference=not args.no_reference,
    )
    if args.json:
        print_json(result.as_dict())
    else:
        print(*result.lines(), sep="\n")
    return OK


def add_eval(p: ArgumentParser) -> None:
    """The words of `eval`."""
    p.add_argument("target", metavar="JOB|CHECKPOINT|SPEC", help="a job id, `last`, a checkpoint, or an untrained spec")
    p.add_argument(
        "--opponent",
        action="extend",
        nargs="+",
        metavar="NAME",
        help="weak, strong, random, none, job ids or checkpoints (behind the target). Default: the spec's",
    )
    p.add_argument("--episodes", type=positive, default=100, metavar="N", help="per opponent (default 100)")
    p.add_argument("--policy", action="store_true", help="the policy's actions, without planning; opponents likewise")
    p.add_argument(
        "--seed",
        type=count_from_zero,
        metavar="N",
        help="of the start states. Default: the training's own, whose evaluations began with the same ones",
    )
    p.add_argument("--video", metavar="FILE", help="film the first episode, as .mp4 or .gif")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default auto)")
    add_json(p)
    p.set_defaults(run=evaluate)


def add_play(p: ArgumentParser) -> None:
    """The words of `play`."""
    p.add_argument("target", metavar="JOB|CHECKPOINT", help="a job id, `last`, a checkpoint or a folder with one")
    p.add_argument(
        "--opponent",
        metavar="NAME",
        help="weak, strong, random, none, a job id or a checkpoint. Default: the spec's",
    )
    p.add_argument("--human", action="store_true", help="you play against it, with the keyboard")
    p.add_argument("--games", type=positive, default=3, metavar="N", help="episodes (default 3)")
    p.add_argument("--policy", action="store_true", help="the policy's actions, without planning: quicker")
    p.add_argument("--seed", type=int, default=1, metavar="N", help="of the first game (default 1)")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default auto)")
    p.set_defaults(run=play)


def add_export(p: ArgumentParser) -> None:
    """The words of `export`."""
    p.add_argument("target", metavar="JOB|CHECKPOINT", help="a job id, `last`, or a checkpoint")
    p.add_argument("folder", metavar="FOLDER", help="gets agent.pt and spec.yaml")
    p.add_argument("--force", action="store_true", help="replace what is there")
    p.add_argument(
        "--training",
        action="store_true",
        help="keep optimizers and running scale too, about twice the networks' size: for train.start_from",
    )
    p.set_defaults(run=export)


def add_rewards(p: ArgumentParser) -> None:
    """The words of `rewards`."""
    p.add_argument("spec", metavar="SPEC")
    p.add_argument("overrides", nargs="*", metavar="key=value")
    p.add_argument("--player", default="strong", metavar="BOT", help="who plays for the agent (default strong)")
    p.add_argument("--phase", type=positive, default=1, metavar="N", help="of a spec with phases (default 1)")
    p.add_argument(
        "--at", type=count_from_zero, default=0, metavar="EPISODE", help="training episode of the weights (default 0)"
    )
    p.add_argument("--episodes", type=positive, default=30, metavar="N", help="played at most (default 30)")
    p.add_argument("--out", metavar="FILE", help="picture: .png, .svg or .pdf (default NAME_rewards.png, here)")
    add_json(p)
    p.set_defaults(run=rewards, rest="overrides")


def add_describe(p: ArgumentParser) -> None:
    """The words of `describe`."""
    add_spec_and_sizes(p)
    p.set_defaults(run=describe, rest="overrides")


def add_bench(p: ArgumentParser) -> None:
    """The words of `bench`."""
    p.description = (
        "Time one plan and one update of a spec's agent, and of the reference agent at horizons 9 and 3 "
        "(18 observations, 4 actions, 10.7 million parameters), and say how long the spec's training would take."
    )
    add_spec_and_sizes(p, optional=True)
    p.add_argument("--repeats", type=positive, default=10, metavar="N", help="timed calls of each (default 10)")
    p.add_argument("--no-reference", action="store_true", help="leave the reference agent out")
    p.set_defaults(run=bench, rest="overrides")


_JUDGED = {"better": "green", "worse": "red", "too few seeds to tell": "yellow"}


def _print_figures(found: Comparison) -> None:
    """Figures, differences in config, who is better, and what has to be known to read that."""
    from rich.console import Console
    from rich.text import Text

    from tdmpc_lab.cli.tables import WIDTH_OF_A_FILE, print_grid
    from tdmpc_lab.report.tables import differences_table, figures_table, headline, pair_line

    console = Console() if sys.stdout.isatty() else Console(width=WIDTH_OF_A_FILE)
    console.print(Text(headline(found)), soft_wrap=True)
    console.print()
    figures = figures_table(found)
    print_grid(console, figures.titles, figures.rows)
    if found.differences:
        console.print()
        differences = differences_table(found)
        print_grid(console, differences.titles, differences.rows)
    elif len(found.summaries) > 1:
        console.print("\ntheir configs are the same", highlight=False)
    if found.pairs:
        console.print()
    for pair in found.pairs:
        console.print(Text(pair_line(pair), _JUDGED.get(pair.judgement, "")), soft_wrap=True)
    if found.remarks:
        console.print()
    for line in found.remarks:
        console.print(Text(line, "bold yellow" if line.startswith("warning") else ""), soft_wrap=True)
