"""The review: jobs without a verdict, one by one with their numbers, and what a person says of each."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tdmpc_lab.errors import LabError
from tdmpc_lab.streams import as_typed

if TYPE_CHECKING:
    from tdmpc_lab.jobs.paths import Project
    from tdmpc_lab.notes.entries import Entry
    from tdmpc_lab.notes.verdict import Judgement, Verdict

QUESTION = "[g]ood [b]ad [u]nclear · [n]ote [s]kip [q]uit > "
_JUDGEMENTS: dict[str, Judgement] = {"g": "good", "b": "bad", "u": "unclear"}
_HIDDEN = re.compile(r"<!-- tdmpc-lab:|!\[[^\]]*\]\(plots/")
_RULE = "─" * 60


class _Enough(Exception):  # noqa: N818 - no error
    """The person has had enough."""


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
        from tdmpc_lab.app.joblog.edit import add_words

        if text := _answer("note: "):
            self.changed[entry.id] = (add_words(self.project, entry.id, text), None)

    def _judge(self, entry: Entry, judgement: Judgement) -> bool:
        """Whether there was a reason, without which there is no verdict."""
        from tdmpc_lab.app.joblog.edit import judge
        from tdmpc_lab.notes.verdict import split_causes

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
        from tdmpc_lab.app.joblog.edit import tell_mlflow
        from tdmpc_lab.app.joblog.log import refresh_rollup

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
