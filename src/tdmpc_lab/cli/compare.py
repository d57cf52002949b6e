"""`compare`: which config is better, and is that told by enough seeds?"""

from __future__ import annotations

import argparse
import shlex
import sys
from argparse import ArgumentParser, Namespace, _SubParsersAction
from pathlib import Path
from typing import TYPE_CHECKING

from tdmpc_lab.cli.common import project_here
from tdmpc_lab.cli.output import print_json
from tdmpc_lab.errors import UsageError
from tdmpc_lab.streams import as_typed

if TYPE_CHECKING:
    from tdmpc_lab.report.comparison import Comparison

OK = 0
_PICTURES = (".png", ".svg", ".pdf")


def add_compare(sub: _SubParsersAction[ArgumentParser]) -> None:
    """The command's words."""
    p = sub.add_parser(
        "compare",
        help="which config is better: figures over seeds with intervals, differences in config, learning curves",
        description="Compare experiments, groups or jobs. Jobs that differ by their seed alone are one variant; "
        "figures are interquartile means over its seeds, all at the same environment step.",
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
    from tdmpc_lab.app.agents.compare import compare_jobs

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
        from tdmpc_lab.report.curves_plot import draw_curves

        draw_curves(plot, found)
    if page is not None:
        from tdmpc_lab.app.agents.compare import write_page

        write_page(project, page, found, shlex.join(["tdmpc-lab", *map(as_typed, sys.argv[1:])]))
    _print(found, args)
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


def _print(found: Comparison, args: Namespace) -> None:
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
        from tdmpc_lab.cli.compare_table import print_comparison

        print_comparison(found)
