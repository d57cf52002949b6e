"""`doctor`."""

from __future__ import annotations

from argparse import Namespace

from tdmpc_lab.cli.common import project_here
from tdmpc_lab.cli.output import print_json
from tdmpc_lab.errors import ExternalError

OK, FAILED = 0, 1


def doctor(args: Namespace) -> int:
    """`doctor`: 0 when nothing is broken, 1 when the installation is, 3 when something outside is."""
    from tdmpc_lab.app.doctor import examine

    points = examine(project_here())
    if args.json:
        print_json([point.as_dict() for point in points])
    else:
        width = max(len(point.name) for point in points)
        for point in points:
            print(f"{point.level:7}  {point.name:{width}}  {point.found}")
            if point.fix:
                print(f"{'':7}  {'':{width}}  → {point.fix}")
    errors = [point for point in points if point.level == "error"]
    if not errors:
        return OK
    return ExternalError.exit_code if all(point.outside for point in errors) else FAILED
