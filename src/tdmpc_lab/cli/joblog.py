"""`note`, `verdict`, `notes`: the job log, its roll-up and page, the review of unjudged jobs, hand-written logs."""

from __future__ import annotations

import argparse
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tdmpc_lab.app.joblog.adopt import DoubtfulLinesError, export_log, import_log
from tdmpc_lab.app.joblog.edit import add_words, edit, ensure_note, judge, move_edits, noted_id, tell_mlflow
from tdmpc_lab.app.joblog.log import catch_up_notes, log_entries
from tdmpc_lab.app.joblog.write import make_rollup, read_note, refresh_rollup
from tdmpc_lab.app.queue.status import job_views
from tdmpc_lab.cli.common import OK, add_json, find_job_id, print_json, project_here
from tdmpc_lab.errors import LabError, UsageError
from tdmpc_lab.files import write_atomic
from tdmpc_lab.jobs.find import is_recorded, tasks_of
from tdmpc_lab.notes.entries import Filter, choose, parse_moment, rollup_lines, unjudged
from tdmpc_lab.notes.rollup import RollupEditedError, log_page
from tdmpc_lab.notes.verdict import split_causes
from tdmpc_lab.sharing import own_umask_outside
from tdmpc_lab.streams import as_typed
from tdmpc_lab.text import count

if TYPE_CHECKING:
    from tdmpc_lab.jobs.paths import Project
    from tdmpc_lab.notes.entries import Entry
    from tdmpc_lab.notes.verdict import Judgement, Verdict


def note(args: Namespace) -> int:
    """`note ID [TEXT]`."""
    project = project_here()
    job = noted_id(project, find_job_id(project, args.job))
    if args.edit and args.text:
        raise UsageError("words to add and --edit: give one of them")
    _catch_up(project, job)
    text = " ".join(args.text)
    if args.text and not text.strip():
        raise UsageError(f'there are no words to add: tdmpc-lab note {job} "what you saw"')
    if args.edit:
        changed = edit(project, job)
    elif text:
        changed = add_words(project, job, text)
    else:
        if is_recorded(project, job):
            ensure_note(project, job)  # it could not be written when the job ran
        whole = read_note(project, job)
        if args.json:
            print_json({"id": job, "note": str(project.note(job)), "text": whole})
        else:
            print(whole, end="")
        return OK
    _spread(project, job, changed)
    if args.json:
        print_json({"id": job, "note": str(project.note(job)), "text": changed.decode(errors="replace")})
    else:
        print(f"{job}: {project.note(job).relative_to(project.root)}")
    return OK


def verdict(args: Namespace) -> int:
    """`verdict ID good|bad|unclear REASON`."""
    project = project_here()
    job = noted_id(project, find_job_id(project, args.job))
    _catch_up(project, job)
    said, changed = judge(project, job, args.judgement, " ".join(args.because), args.cause)
    _spread(project, job, changed, said)
    if args.json:
        print_json({"id": job, "note": str(project.note(job)), **said.as_dict()})
    else:
        print(f"{job}: {said.line}")
    return OK


def _catch_up(project: Project, job: str) -> None:
    """The job's note, or that of the whole array, says how it ended before words are added or read."""
    ids = tasks_of(project, job) or ([job] if is_recorded(project, job) else [])
    catch_up_notes(project, job_views(project, ids))


def _spread(project: Project, job: str, changed: bytes, said: Verdict | None = None) -> None:
    """What the note says now goes into the roll-up and into MLflow."""
    refresh_rollup(project)
    if problem := tell_mlflow(project, job, changed, said):
        print(f"warning: the note has it, MLflow not: {problem}", file=sys.stderr)


MOST_SHOWN = 50  # on a terminal, unless something was asked for


def notes(args: Namespace) -> int:
    """`notes [--experiment …] [--json]`."""
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
        review(project, entries)
    else:
        _print(entries, args)
    return OK


def _filter(args: Namespace) -> Filter:
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
    """What the user at the terminal wants of lines in doubt; None without a terminal, or for neither."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    print(f"{what}\n[s]plit, [a]s it is, or [n]othing? [s/a/N] ", end="", file=sys.stderr, flush=True)
    return {"s": True, "a": False}.get(sys.stdin.readline().strip().lower()[:1])


def _agreed(what: str) -> bool:
    """Whether the user at the terminal wants it now; without one nobody is asked."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(f"{what}\ndo so now? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def import_(args: Namespace) -> int:
    """`notes import FILE`."""
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


def add_note(p: ArgumentParser) -> None:
    """The words of `note`."""
    p.description = "Print a job's note; with words, add them to it as an item of its list."
    p.add_argument("job", metavar="ID", help="a job id, or `last`")
    p.add_argument("text", nargs="*", metavar="TEXT", help="what to add, below what the tool writes")
    p.add_argument("--edit", action="store_true", help="open the note in $EDITOR")
    add_json(p)
    p.set_defaults(run=note, rest="text")


def add_verdict(p: ArgumentParser) -> None:
    """The words of `verdict`."""
    p.description = "Put a verdict into a job's note, in place of an earlier one, and into its MLflow run."
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
    p.set_defaults(run=verdict, rest="because")


def add_notes(p: ArgumentParser) -> None:
    """The words of `notes`."""
    p.description = (
        "The job log, newest last: one entry a job, made from the notes. "
        "Times are written 2026-01-22, '2026-01-22 22:05', or 7d, 12h for so long ago."
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
    p.set_defaults(run=notes)
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
    p.set_defaults(run=import_)
    p = actions.add_parser("export", help="print an imported log, with the entries as they are now")
    p.add_argument("log", nargs="?", metavar="LOG", help="which, where several were imported")
    p.add_argument("--out", metavar="FILE", help="write it there")
    p.set_defaults(run=export)


QUESTION = "[g]ood [b]ad [u]nclear · [n]ote [s]kip [q]uit > "
_JUDGEMENTS: dict[str, Judgement] = {"g": "good", "b": "bad", "u": "unclear"}
_HIDDEN = re.compile(r"<!-- tdmpc-lab:|!\[[^\]]*\]\(plots/")
_RULE = "─" * 60


class _Enough(Exception):  # noqa: N818 - no error
    """The user has had enough."""


def review(project: Project, entries: Sequence[Entry]) -> None:
    """Walk through the entries; every verdict is in its note before the next job is shown.

    MLflow is told at the end, as it takes seconds to load.
    """
    walk = _Walk(project)
    judged = 0
    try:
        for number, entry in enumerate(entries, start=1):
            print(f"\n{_RULE}\n{number} of {len(entries)}\n\n{readable(entry)}")
            judged += walk.ask(entry)
    except (_Enough, KeyboardInterrupt):
        print()
    finally:
        print(f"\n{judged} judged, {len(entries) - judged} left")
        walk.finish()


def readable(entry: Entry) -> str:
    """The whole note, without the comments that mark the tool's block, and the picture that no terminal shows."""
    lines = [line for line in entry.text.split("\n") if not _HIDDEN.match(line)]
    printable = ["".join(char for char in line.expandtabs(4) if char.isprintable()) for line in lines]
    return "\n".join(printable).strip("\n") + "\n"


class _Walk:
    """The questions, and what was answered."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.changed: dict[str, tuple[bytes, Verdict | None]] = {}

    def ask(self, entry: Entry) -> bool:
        """Questions about one job until it is judged (True) or left (False)."""
        while True:
            answer = _answer(QUESTION).lower()[:1]
            if answer == "q":
                raise _Enough
            if answer == "s":
                return False
            try:
                if answer == "n":
                    self._note(entry)
                elif answer in _JUDGEMENTS and self._judge(entry, _JUDGEMENTS[answer]):
                    return True
            except LabError as error:  # a mistyped setting, a broken note: told, and asked again
                print(error, file=sys.stderr)

    def _note(self, entry: Entry) -> None:
        if text := _answer("note: "):
            self.changed[entry.id] = (add_words(self.project, entry.id, text), None)

    def _judge(self, entry: Entry, judgement: Judgement) -> bool:
        """Whether there was a reason, without which there is no verdict."""
        because = _answer("why: ")
        if not because:
            return False
        cause = "" if judgement == "good" else _answer("the setting that did it, as agent.horizon=18 (or just Enter): ")
        said, note = judge(self.project, entry.id, judgement, because, split_causes(cause))
        print(said.line)
        self.changed[entry.id] = (note, said)
        return True

    def finish(self) -> None:
        """MLflow and the roll-up."""
        told = [tell_mlflow(self.project, job, note, said) for job, (note, said) in self.changed.items()]
        for problem in dict.fromkeys(filter(None, told)):
            print(f"warning: the notes have it, MLflow not: {problem}", file=sys.stderr)
        if self.changed:
            refresh_rollup(self.project)


def _answer(question: str) -> str:
    """What was typed. The end of the input ends the review."""
    print(question, end="", flush=True)
    line = sys.stdin.readline()
    if not line:
        raise _Enough
    return as_typed(line.strip())
