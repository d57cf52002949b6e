"""`notes`: the job log in the terminal, its roll-up, its page, and hand-written logs."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tdmpc_lab.cli.common import project_here
from tdmpc_lab.cli.output import print_json
from tdmpc_lab.errors import UsageError
from tdmpc_lab.sharing import own_umask_outside
from tdmpc_lab.text import count

if TYPE_CHECKING:
    from tdmpc_lab.jobs.paths import Project
    from tdmpc_lab.notes.entries import Entry
    from tdmpc_lab.notes.log import Filter

OK = 0
MOST_SHOWN = 50  # on a terminal, unless something was asked for


def notes(args: Namespace) -> int:
    """`notes [--experiment …] [--json]`."""
    from tdmpc_lab.app.joblog.log import log_entries
    from tdmpc_lab.notes.log import choose, unjudged

    project = project_here()
    if args.rollup or args.move:
        return _rollup(project, args)
    wanted = _filter(args)
    entries, problems = log_entries(project)
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)
    known = len(entries)
    entries = choose(entries, wanted)
    if args.unjudged:
        entries = unjudged(entries)
    if args.html is not None:
        return _page(project, entries, args)
    if args.json:
        print_json([{**entry.as_dict(), "note": str(project.note(entry.id))} for entry in entries])
    elif not entries:
        print(_nothing(known, args.unjudged), file=sys.stderr)
    elif args.unjudged and sys.stdin.isatty() and sys.stdout.isatty():
        from tdmpc_lab.cli.review import review

        review(project, entries)
    else:
        _print(entries, args)
    return OK


def _filter(args: Namespace) -> Filter:
    from tdmpc_lab.notes.log import Filter, parse_moment

    now = datetime.now()
    return Filter(
        experiment=args.experiment,
        state=args.state,
        verdict=args.verdict,
        text=args.text,
        since=None if args.since is None else parse_moment(args.since, now),
        until=None if args.until is None else parse_moment(args.until, now, end=True),
    )


def _nothing(known: int, only_unjudged: bool) -> str:
    if not known:
        return "the log is empty; take in a hand-written one: tdmpc-lab notes import FILE"
    if only_unjudged:
        return "every job that is over has its verdict"
    return f"no entry is like that; the log has {known:,}"


def _print(entries: Sequence[Entry], args: Namespace) -> None:
    """One entry after the other, newest last; on a terminal in colours, and of very many the last ones."""
    from tdmpc_lab.notes.entries import rollup_lines

    on_terminal = sys.stdout.isatty()
    asked = (args.experiment, args.state, args.verdict, args.text, args.since, args.until)
    shown = entries
    if on_terminal and not args.all and all(one is None for one in asked):
        shown = entries[-MOST_SHOWN:]
    blocks = [rollup_lines(entry) for entry in shown]
    if on_terminal:
        from tdmpc_lab.cli.tables import print_entries

        print_entries(blocks, [entry.verdict.judgement if entry.verdict else "" for entry in shown])
    else:
        sys.stdout.write("\n\n".join("\n".join(block) for block in blocks).encode(errors="replace").decode() + "\n")
    if len(shown) < len(entries):
        print(
            f"\n{count(len(entries) - len(shown), 'older entry', 'older entries')}; all: tdmpc-lab notes --all",
            file=sys.stderr,
        )
    if args.unjudged:
        print(
            f"\n{len(entries):,} without a verdict: tdmpc-lab verdict {entries[-1].id} good|bad|unclear "
            '"because …", or on a terminal: tdmpc-lab notes --unjudged',
            file=sys.stderr,
        )


def _page(project: Project, entries: Sequence[Entry], args: Namespace) -> int:
    from tdmpc_lab.files import write_atomic
    from tdmpc_lab.notes.page import log_page

    file = Path(args.html)
    page = log_page(entries, f"Job log of {project.root.name}", datetime.now())
    with own_umask_outside(file):
        write_atomic(file, page.encode(errors="replace"))
    if args.json:
        print_json({"html": str(file), "jobs": len(entries)})
    else:
        print(f"{file}: {count(len(entries), 'job')}")
    return OK


def _rollup(project: Project, args: Namespace) -> int:
    """`notes --rollup [--move]`."""
    from tdmpc_lab.app.joblog.log import log_entries, make_rollup, move_edits
    from tdmpc_lab.notes.rollup import RollupEditedError

    log_entries(project)  # what the notes do not say yet of jobs that were killed
    moved: list[str] = []
    try:
        make_rollup(project)
    except RollupEditedError as error:
        if error.foreign or not (args.move or _agreed(str(error))):
            raise
        moved = move_edits(project, error.added)
    path = project.rollup.relative_to(project.root)
    if args.json:
        print_json({"rollup": str(path), "moved_to": moved})
        return OK
    if moved:
        print(f"moved your lines into the notes of {', '.join(moved)}")
    print(path)
    return OK


def _split_or_not(what: str) -> bool | None:
    """What the person at the terminal wants of lines in doubt; None where there is none, or he wants neither."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    print(f"{what}\n[s]plit, [a]s it is, or [n]othing? [s/a/N] ", end="", file=sys.stderr, flush=True)
    return {"s": True, "a": False}.get(sys.stdin.readline().strip().lower()[:1])


def _agreed(what: str) -> bool:
    """Whether the person at the terminal wants it now; without one nobody is asked."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(f"{what}\ndo so now? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def import_(args: Namespace) -> int:
    """`notes import FILE`."""
    from tdmpc_lab.app.joblog.adopt import DoubtfulLinesError, import_log
    from tdmpc_lab.app.joblog.log import refresh_rollup

    project = project_here()
    try:
        done = import_log(project, Path(args.file), split=args.split)
    except DoubtfulLinesError as error:
        split = _split_or_not(str(error))
        if split is None:
            raise
        done = import_log(project, Path(args.file), split=split)
    if done.changed:
        refresh_rollup(project)
    if args.json:
        print_json(done.as_dict())
        return OK
    counts = {what: sum(one == what for one in done.jobs.values()) for what in ("new", "merged", "unchanged")}
    told = ", ".join(f"{many} {what}" for what, many in counts.items() if many) or "none"
    print(f"{args.file}: {count(len(done.jobs), 'job')} ({told})")
    for job_id, what in done.jobs.items():
        if what != "unchanged":
            print(f"  {job_id}  {what}")
    kept = f"notes/imported/{done.log}.md"
    print(f"of no job, and kept in {kept}: {count(done.lines_kept, 'line')}; all of it again: tdmpc-lab notes export")
    return OK


def export(args: Namespace) -> int:
    """`notes export [LOG] [--out FILE]`."""
    from tdmpc_lab.app.joblog.adopt import export_log
    from tdmpc_lab.files import write_atomic

    data = export_log(project_here(), args.log)
    if args.json:
        print_json({"log": args.log, "text": data.decode(errors="replace")})
        return OK
    if args.out is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return OK
    if Path(args.out).is_dir():
        raise UsageError(f"--out {args.out} is a folder; name a file")
    with own_umask_outside(Path(args.out)):
        write_atomic(Path(args.out), data)
    print(f"{args.out}: {len(data):,} bytes", file=sys.stderr)
    return OK
