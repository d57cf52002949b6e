"""What somebody made of a job's result: the `-->` lines of notes and of hand-written logs.

--> bad: because it looked too far ahead [cause: agent.horizon=18]     as the command `verdict` writes it
--> fucked because 18! and config error                                as a user writes it
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from tdmpc_lab.text import one_line

Judgement = Literal["good", "bad", "unclear"]
JUDGEMENTS: tuple[Judgement, ...] = get_args(Judgement)

BAD_WORDS = (
    "abort", "abgebrochen", "abgestürzt", "bad", "broke", "bug", "bullshit", "crap", "crash", "dead", "died", "diverge",
    "error", "exploded", "fail", "falsch", "fehler", "fuck", "garbage", "gescheitert", "hopeless", "kaputt",
    "misslungen", "müll", "nan", "oom", "out of memory", "schlecht", "scheiß", "scheiss", "schrott", "shit", "sinnlos",
    "stuck", "terrible", "trash", "unbrauchbar", "unusable", "useless", "worse", "worthless", "wrong",
)  # fmt: skip
"""A hand-written `-->` line with a word that begins like one of these counts as bad; else it is unclear.
The command `verdict` overrules that."""
_WHOLE_WORDS = {"bad", "nan", "oom", "bug", "dead", "died"}  # other words begin like these: badge, deadline
_NEGATIONS = ("no", "not", "never", "without", "kein", "keine", "keinen", "nicht", "nie", "ohne")

_ENDS = dict.fromkeys(_WHOLE_WORDS, r"s?(?!\w)")
_BAD_WORD = re.compile(
    rf"(?<!\w)(?:{'|'.join(re.escape(word) + _ENDS.get(word, '') for word in BAD_WORDS)})", re.IGNORECASE
)
_NEGATED = re.compile(rf"(?<!\w)(?:{'|'.join(_NEGATIONS)})\s+(?:\w+\s+)?\Z", re.IGNORECASE)
_LINE = re.compile(r"[ \t]{0,3}-{2,}>[ \t]*(?P<text>.*?)\s*", re.DOTALL)
_STATED = re.compile(rf"(?P<judgement>{'|'.join(JUDGEMENTS)})[ \t]*(?::[ \t]*(?P<rest>.*))?", re.IGNORECASE | re.DOTALL)
_CAUSE = re.compile(r"[ \t]*\[cause:[ \t]*(?P<causes>(?:(?!\[cause:).)*)\]$")


@dataclass(frozen=True)
class Verdict:
    """One judgement with its reason."""

    judgement: Judgement
    because: str
    """The words, without `because`; of a hand-written line, all of it."""
    causes: tuple[str, ...] = ()
    """`key=value` as the config has them: `agent.horizon=18`."""
    line: str = ""
    """The whole line as it stands in the note."""
    by_command: bool = False
    """Whether the command `verdict` wrote it: then it overrules what people wrote into the note."""

    @property
    def tags(self) -> dict[str, str]:
        """For the job's MLflow run."""
        return {"verdict": self.judgement, "verdict_cause": ", ".join(self.causes)}

    def as_dict(self) -> dict[str, object]:
        """For scripts."""
        return {"verdict": self.judgement, "because": self.because, "causes": list(self.causes)}


def format_verdict(judgement: Judgement, because: str, causes: Sequence[str] = ()) -> str:
    """The line for a note: `--> bad: because … [cause: agent.horizon=18]`; one line, the words as they were said, in
    whatever language."""
    cause = f" [cause: {', '.join(one_line(text) for text in causes)}]" if causes else ""
    return f"--> {judgement}: {one_line(because)}{cause}"


def is_verdict_line(line: str) -> bool:
    """Whether a line of a note, without its end, says what somebody made of the result."""
    return "-->" in line and _LINE.fullmatch(line) is not None


def is_stated(line: str) -> bool:
    """Whether a verdict's line begins with `good`, `bad` or `unclear`, as the command writes it."""
    match = _LINE.fullmatch(line)
    return match is not None and _STATED.fullmatch(match["text"]) is not None


def parse_verdict(line: str, *, by_command: bool = False) -> Verdict:
    """The verdict of a line that `is_verdict_line`.

    `good`, `bad` or `unclear` at its beginning is taken at its word; else the words decide.
    """
    match = _LINE.fullmatch(line)
    assert match is not None
    text = match["text"]
    stated = _STATED.fullmatch(text)
    if stated is None:
        return Verdict("bad" if sounds_bad(text) else "unclear", text, (), line, by_command)
    judgement = next(known for known in JUDGEMENTS if known == stated["judgement"].lower())
    rest, causes = take_causes(stated["rest"] or "")
    reason = re.sub(r"^because\b[ \t]*", "", rest, flags=re.IGNORECASE)
    return Verdict(judgement, reason, tuple(causes), line, by_command)


def take_causes(reason: str) -> tuple[str, list[str]]:
    """A reason and the causes at its end: `too long [cause: agent.horizon=18]` → `too long`, `[agent.horizon=18]`."""
    found = _CAUSE.search(reason)
    return (reason, []) if found is None else (reason[: found.start()], split_causes(found["causes"]))


def split_causes(text: str) -> list[str]:
    """`agent.horizon=18, reward.backprop.bonus=10` → its parts; a comma inside a value stays."""
    return [part.strip() for part in re.split(r",(?=\s*[a-z_][\w.]*=)", text) if part.strip()]


def sounds_bad(text: str) -> bool:
    """Whether one of the bad words stands in the text, and not right behind a `no`, `without` and the like."""
    return any(not _NEGATED.search(text, 0, match.start()) for match in _BAD_WORD.finditer(text))
