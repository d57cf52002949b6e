"""What `submit`, `resume` and `rerun` do about settings that jobs were judged bad for: they say so, and ask."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tdmpc_lab.cli.repeats import yes
from tdmpc_lab.errors import UsageError

if TYPE_CHECKING:
    from tdmpc_lab.app.submit.submit import Cluster, Plan
    from tdmpc_lab.jobs.paths import Project


def warn_of_mistakes(project: Project, plans: Sequence[Plan], cluster: Cluster, args: Namespace) -> list[Plan]:
    """The plans with their warnings, which go into the jobs' records and notes; those of `lint` are only told.

    At a terminal it asks about the others, unless told `--yes`, on a dry run or for debug.

    Raises UsageError where the answer is no, and for a rule that there is not.
    """
    from tdmpc_lab.app.checks.blamed import find_blamed, which_of, with_warnings
    from tdmpc_lab.app.checks.lint import lint, with_advice

    items = [plan.item for plan in plans]
    advice = lint(project, plans, cluster, args.no_lint, environments=not args.skip_preflight)
    for finding, numbers in advice:
        where = which_of(items, numbers)
        print(f"warning: {f'{where}: ' if where else ''}{finding}", file=sys.stderr)
    plans = with_advice(plans, advice)
    found = find_blamed(project, items)
    for blamed in found:
        if blamed.good:
            good = ", ".join(entry.id for entry in blamed.good)
            print(f"note: {blamed.text}; but it was judged good in {good}", file=sys.stderr)
    against = [blamed for blamed in found if not blamed.good]
    for blamed in against:
        where = which_of(items, blamed.plans)
        print(f"warning: {f'{where}: ' if where else ''}{blamed.text}", file=sys.stderr)
    warned = with_warnings(plans, against)
    if not against or args.yes or getattr(args, "dry_run", False) or cluster == "debug":
        return warned
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        print("note: nobody can be asked here: submitted all the same, with the warning in the note", file=sys.stderr)
    elif not yes("submit all the same?"):
        raise UsageError("nothing was done")
    return warned
