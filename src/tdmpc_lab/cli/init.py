"""`init`: make a project, and share it."""

from __future__ import annotations

import argparse
import shlex
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from tdmpc_lab.cli.common import add_json
from tdmpc_lab.cli.output import print_json

if TYPE_CHECKING:
    from tdmpc_lab.app.health.project import Made

OK, FAILED = 0, 1
_SHOWN = 5


def add_init(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    p = sub.add_parser(
        "init",
        help="make a project of a folder; --shared: one that several users share",
        description="Make the folders of a project where they are missing. With --shared, give everything in it to one "
        "group, now and whatever is made in it later, and close it to others; see docs/sharing.md.",
    )
    p.add_argument("folder", nargs="?", metavar="FOLDER", help="default: the project here, else the current folder")
    p.add_argument("--shared", action="store_true", help="share it with the group of its folder, or with --group")
    p.add_argument("--group", metavar="NAME", help="who shares it: the name of a group that you are in")
    add_json(p)
    p.set_defaults(run=init)


def init(args: Namespace) -> int:
    """`init [FOLDER] [--shared [--group NAME]]`: 1 when something could not be shared."""
    from tdmpc_lab.app.health.project import init as run

    made = run(_folder(args.folder), group=args.group, shared=args.shared)
    if args.json:
        print_json(made.as_dict())
    else:
        _show(made)
    return FAILED if made.left else OK


def _folder(text: str | None) -> Path:
    """The folder that was named; by default the project around here, which a folder in it is not to become, too."""
    from tdmpc_lab.errors import UsageError
    from tdmpc_lab.jobs.paths import find_project

    if text is not None:
        return Path(text)
    try:
        return find_project().root
    except UsageError:
        return Path.cwd()


def _show(made: Made) -> None:
    new = f"made {', '.join(made.made)}" if made.made else "all folders are there"
    print(f"project {made.folder}: {new}")
    if made.group is None:
        return
    print(f"shared with group {made.group}: {made.changed:,} files and folders changed; others see nothing")
    for one in made.left[:_SHOWN]:
        print(f"left as it was: {one.path} ({one.why})", file=sys.stderr)
    if len(made.left) > _SHOWN:
        print(f"left as they were: {len(made.left) - _SHOWN:,} more", file=sys.stderr)
    if made.left:
        print("their owners mend that: tdmpc-lab init --shared", file=sys.stderr)
    for path in made.closed_above:
        print(
            f"warning: {path} keeps the group out: chmod o+x {shlex.quote(str(path))}, or move the project",
            file=sys.stderr,
        )
    if made.git:
        print(f"each of the others, once: git config --global --add safe.directory {shlex.quote(str(made.folder))}")
