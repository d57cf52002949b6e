"""The parsers of `note`, `verdict` and `notes`: the commands of the job log."""

from __future__ import annotations

import argparse

from tdmpc_lab.cli import joblog, notebook
from tdmpc_lab.cli.common import add_json


def add_log_commands(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add them to the command line."""
    _add_note(sub)
    _add_verdict(sub)
    _add_notes(sub)


def _add_note(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = sub.add_parser(
        "note",
        help="print a job's note, or add your words to it",
        description="Print a job's note; with words, add them to it as an item of its list.",
    )
    p.add_argument("job", metavar="ID", help="a job id, or `last`")
    p.add_argument("text", nargs="*", metavar="TEXT", help="what to add, below what the tool writes")
    p.add_argument("--edit", action="store_true", help="open the note in $EDITOR")
    add_json(p)
    p.set_defaults(run=notebook.note, rest="text")


def _add_verdict(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = sub.add_parser(
        "verdict",
        help="say what a job's result is worth, and why",
        description="Put a verdict into a job's note, in place of an earlier one, and into its MLflow run.",
    )
    p.add_argument("job", metavar="ID", help="a job id, or `last`")
    p.add_argument("judgement", choices=["good", "bad", "unclear"])
    p.add_argument("because", nargs="*", metavar="REASON", help='why: "because …"')
    p.add_argument(
        "--cause",
        action="append",
        default=[],
        metavar="key=value",
        help="the setting of the job that did it, such as agent.horizon=18; may be given several times",
    )
    add_json(p)
    p.set_defaults(run=notebook.verdict, rest="because")


def _add_notes(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = sub.add_parser(
        "notes",
        help="the job log: read it, review jobs without a verdict, take in a hand-written log",
        description="The job log, newest last: one entry a job, made from the notes. "
        "Times are written 2026-01-22, '2026-01-22 22:05', or 7d, 12h for so long ago.",
    )
    p.add_argument("--experiment", metavar="NAME", help="only jobs of this experiment")
    p.add_argument("--state", metavar="STATE", help="only jobs in this state: completed, failed, running, killed, …")
    p.add_argument("--verdict", choices=["good", "bad", "unclear", "none"], help="only jobs judged so, or not yet")
    p.add_argument("--text", metavar="WORDS", help="only notes that hold these words")
    p.add_argument("--since", metavar="TIME", help="only jobs submitted at this time or later")
    p.add_argument("--until", metavar="TIME", help="only jobs submitted before it; a day counts in full")
    p.add_argument(
        "--unjudged",
        action="store_true",
        help="jobs that are over and have no verdict; on a terminal one by one, to judge them",
    )
    p.add_argument("--all", action="store_true", help="every entry, also where there are hundreds")
    p.add_argument("--html", metavar="FILE", help="write the log as one page for a browser")
    p.add_argument("--rollup", action="store_true", help="write notes/JOBS.md anew from the notes")
    p.add_argument("--move", action="store_true", help="first put what was written into JOBS.md into the jobs' notes")
    add_json(p)
    p.set_defaults(run=joblog.notes)
    actions = p.add_subparsers(dest="action", metavar="import|export")

    p = actions.add_parser("import", help="take in a hand-written log: every job becomes an entry, every line is kept")
    p.add_argument("file", metavar="FILE")
    doubts = p.add_mutually_exclusive_group()
    doubts.add_argument(
        "--split",
        action="store_true",
        default=None,
        help="lines that begin with a job id, without being headings, begin entries; a closing list belongs to no job",
    )
    doubts.add_argument(
        "--as-is", action="store_false", dest="split", help="such lines are part of the entry above them"
    )
    add_json(p, default=argparse.SUPPRESS)
    p.set_defaults(run=joblog.import_)

    p = actions.add_parser("export", help="print an imported log, with the entries as they are now")
    p.add_argument("log", nargs="?", metavar="LOG", help="which, where several were imported")
    p.add_argument("--out", metavar="FILE", help="write it there")
    p.set_defaults(run=joblog.export)
