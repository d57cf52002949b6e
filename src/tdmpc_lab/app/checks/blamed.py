"""Configs about to be submitted, against what the job log says went wrong before.

Notes name settings as people write them: `Horizon 18`, `lr: 3e-4`, `batch size = 512`, `without backprop`.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from tdmpc_lab.app.submit.submit import JobPlan
from tdmpc_lab.config.causes import has_setting
from tdmpc_lab.config.diff import NOT_COMPARED
from tdmpc_lab.config.fieldtypes import KeyPath, spec_types
from tdmpc_lab.config.loader import LoadedSpec, load_resolved
from tdmpc_lab.errors import Finding, SpecError
from tdmpc_lab.files import read_whole
from tdmpc_lab.jobs.find import folder_names, tasks_of
from tdmpc_lab.jobs.ids import is_job_id, natural_key
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.notes.entries import Entry, parse_entry
from tdmpc_lab.notes.verdict import is_verdict_line

_SHOWN = 4
_LOOKED_AT = 200  # configs of jobs judged good, the newest, that are read for one setting: it takes milliseconds each
# A line that may be a verdict, in the bytes of a note; `is_verdict_line` decides.
_MAY_BE_VERDICT = re.compile(rb"(?:^|<!-- tdmpc-lab:end -->)(?:\xef\xbb\xbf)?[ \t]{0,3}-{2,}>", re.MULTILINE)


@dataclass(frozen=True)
class Blamed:
    """A setting that jobs were judged bad for, and that new jobs have."""

    setting: str
    """`agent.horizon=18`."""
    bad: tuple[Entry, ...]
    good: tuple[Entry, ...]
    """Jobs that had it too and were judged good, the newest few: then it is no reason to stop."""
    plans: tuple[int, ...]
    """Numbers of the new jobs that have it."""

    @property
    def text(self) -> str:
        """What the log says of it, on one line."""
        by_words: dict[str, list[str]] = {}
        for entry in self.bad:
            assert entry.verdict is not None
            by_words.setdefault(entry.verdict.line.strip(), []).append(entry.id)
        quoted = [f'{_listed(ids)}: "{line}"' for line, ids in by_words.items()]
        more = f"; and {len(quoted) - _SHOWN} more" if len(quoted) > _SHOWN else ""
        return f"{self.setting} was judged bad in {'; '.join(quoted[:_SHOWN])}{more}"


def find_blamed(project: Project, items: Sequence[LoadedSpec]) -> list[Blamed]:
    """The settings of these configs that a job of the log was judged bad for, the newest such job last.

    Those are the causes given with the verdict; without any, the settings named in its words and, of an imported
    entry, in its bullets. Notes that can't be read, or whose markers are broken, are left out: `notes` reports them.
    """
    judged = list(_judged(project))
    bad: dict[str, list[Entry]] = {}
    for entry in judged:
        if entry.verdict is not None and entry.verdict.judgement == "bad":
            for setting in blamed_settings(entry):
                bad.setdefault(setting, []).append(entry)
    good = [entry for entry in judged if entry.verdict is not None and entry.verdict.judgement == "good"]
    found = []
    for setting, entries in bad.items():
        having = tuple(number for number, item in enumerate(items) if has_setting(item.spec, setting))
        if having:
            found.append(Blamed(setting, tuple(entries), _that_had(project, good, setting), having))
    return found


def blamed_settings(entry: Entry) -> list[str]:
    """What a bad verdict is about, as `key=value`.

    Of the settings in an imported entry's bullets those whose value the verdict names, as in `fucked because 18!`;
    if it names none of them, all. What is on or off counts only where the verdict itself says so.
    """
    verdict = entry.verdict
    assert verdict is not None
    if verdict.causes:
        return list(verdict.causes)
    said = number_settings(verdict.because) + switch_settings(verdict.because)
    if said or not entry.imported:
        return said
    listed = _listed_settings(entry)
    return [setting for setting in listed if _names(verdict.because, setting)] or listed


def with_warnings(plans: Sequence[JobPlan], found: Sequence[Blamed]) -> list[JobPlan]:
    """The plans with what the log has against each, for their records."""
    warnings: dict[int, list[str]] = {}
    for blamed in found:
        for number in blamed.plans:
            warnings.setdefault(number, []).append(blamed.text)
    return [replace(p, warned=(*p.warned, *warnings.get(number, ()))) for number, p in enumerate(plans)]


def which_of(items: Sequence[LoadedSpec], numbers: Sequence[int]) -> str:
    """The jobs meant, in words, empty where it is all of them: `2 of 12 jobs: agent.horizon=18, train.seed=0; …`."""
    if len(numbers) == len(items):
        return ""
    named = [str(items[number].point or items[number].spec.name) for number in numbers[:_SHOWN]]
    return f"{len(numbers)} of {len(items)} jobs: {'; '.join(named)}{'; …' if len(numbers) > _SHOWN else ''}"


def _judged(project: Project) -> Iterator[Entry]:
    """The entries with a verdict, by id. Only these are parsed: there may be thousands of notes."""
    if not project.notes.is_dir():
        return
    files = [path for path in project.notes.glob("*.md") if is_job_id(path.stem)]
    for path in sorted(files, key=lambda path: natural_key(path.stem)):
        with contextlib.suppress(OSError):
            note = read_whole(path)
            if _MAY_BE_VERDICT.search(note):
                entry = parse_entry(path.stem, note)
                if entry.verdict is not None and entry.problem is None:
                    yield entry


def _listed_settings(entry: Entry) -> list[str]:
    bullets = [line for line in entry.words if line.startswith(("- ", "* ")) and not is_verdict_line(line)]
    return list(dict.fromkeys(setting for line in bullets for setting in number_settings(line)))


def _names(words: str, setting: str) -> bool:
    """Whether the words hold the setting's value, or its name."""
    key, _, value = setting.partition("=")
    name = re.escape(key.rpartition(".")[2]).replace("_", "[ _-]?")
    return (
        re.search(rf"(?<![\w.]){re.escape(value)}(?![\w]|\.\d)|(?<!\w){name}(?!\w)", words, re.IGNORECASE) is not None
    )


def _that_had(project: Project, entries: Sequence[Entry], setting: str) -> tuple[Entry, ...]:
    """The newest few of these that had the setting: by their configs, imported ones by their bullets."""
    found: list[Entry] = []
    folders = set(folder_names(project))
    arrays = {name.partition("_")[0] for name in folders if "_" in name}
    left = _LOOKED_AT
    for entry in reversed(entries):
        if len(found) == _SHOWN:
            break
        if entry.id not in folders and entry.id not in arrays:
            if setting in _listed_settings(entry):
                found.append(entry)
            continue
        configs = [project.job(task).resolved for task in tasks_of(project, entry.id) or [entry.id]]
        if left > 0 and all(_may_have(path, setting) for path in configs):
            left -= 1
            with contextlib.suppress(SpecError, OSError):
                if all(has_setting(load_resolved(path), setting) for path in configs):
                    found.append(entry)
    return tuple(reversed(found))


def _may_have(config: Path, setting: str) -> bool:
    """Whether a config may hold the setting, by a look at its text: False only where it says another number."""
    key, _, value = setting.partition("=")
    try:
        wanted = float(value)
        said = re.findall(
            rf"^\s*{re.escape(key.rpartition('.')[2])}:(.*)$", config.read_text(encoding="utf-8"), re.MULTILINE
        )
        return not said or any(float(one) == wanted for one in said)
    except (OSError, ValueError):  # no number, or not one that is written so
        return config.exists()


def findings(items: Sequence[LoadedSpec], found: Sequence[Blamed]) -> list[Finding]:
    """For `check`: a warning for each setting that only bad jobs had."""
    return [
        Finding(
            level="warning",
            check="log",
            where=which_of(items, blamed.plans),
            what=blamed.text,
            fix="another value, or `tdmpc-lab verdict` where the log is wrong",
        )
        for blamed in found
        if not blamed.good
    ]


def _listed(ids: Sequence[str]) -> str:
    shown = [*ids[:_SHOWN], *([f"{len(ids) - _SHOWN} more"] if len(ids) > _SHOWN else [])]
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if shown[1:] else shown[0]


_NUMBER = re.compile(
    r"(?<![\w.,-])(?P<number>-?(?:[0-9]{1,3}(?:[,_][0-9]{3})+|[0-9]+)?(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)"
    r"(?P<factor>[kM])?(?![\w]|[.,][0-9]|\s*(?:-|–|/|to\b|bis\b|→|->)\s*[0-9])"
)
# What may stand between a setting's name and its number.
_BETWEEN = re.compile(r"(?:\s*[:=]\s*|\s+(?:of|is|was|at|auf|von|war)\s+|\s+)\Z", re.IGNORECASE)
_WORDS = re.compile(r"(?:[^\W\d][\w.]*[\s-]){0,3}[^\W\d][\w.]*\Z")
_FACTORS = {None: 1, "k": 1_000, "M": 1_000_000}
# A setting behind one of these is what the job did not have.
_NOT_THIS = {
    "no",
    "not",
    "without",
    "instead",
    "of",
    "than",
    "from",
    "vs",
    "versus",
    "statt",
    "kein",
    "keine",
    "keinen",
}
_NOT_THIS |= {"nicht", "ohne", "als", "von"}
_SPELLINGS = {"learning_rate": "lr", "batchsize": "batch_size", "num_envs": "envs", "environments": "envs"}
_LONG_ENOUGH = 6  # letters of a word that may have a typing error
_SECTIONS = {
    "reward.backprop": r"back(?:ward)?[ -]?prop(?:agation)?",
    "reward.shaping": r"(?:reward[ -])?shaping",
}
_SWITCH = re.compile(
    rf"\b(?P<how>no|without|kein|ohne|with|mit)\s+(?:the\s+)?(?P<what>{'|'.join(_SECTIONS.values())})\b", re.IGNORECASE
)
_OFF = ("no", "without", "kein", "ohne")


def number_settings(text: str) -> list[str]:
    """The numbers of the config that a line names, as `agent.horizon=18`, in its order.

    Only where the name can mean one key, and where the line does not say that it was otherwise (`not horizon 18`,
    `9 instead of horizon 18`) or that there were several values (`horizon 5-18`).
    """
    found = []
    for match in _NUMBER.finditer(text):
        before = text[: match.start()]
        between = _BETWEEN.search(before)
        words = _WORDS.search(before[: between.start()]) if between else None
        key = _named(re.split(r"[\s-]+", words[0])) if words else None
        if key is not None and (value := _value(key, match["number"], match["factor"])) is not None:
            found.append(f"{'.'.join(key)}={value}")
    return list(dict.fromkeys(found))


def switch_settings(text: str) -> list[str]:
    """What a line says is off or on, as `reward.backprop=off`."""
    found = []
    for match in _SWITCH.finditer(text):
        key = next(key for key, form in _SECTIONS.items() if re.fullmatch(form, match["what"], re.IGNORECASE))
        found.append(f"{key}={'off' if match['how'].lower() in _OFF else 'on'}")
    return list(dict.fromkeys(found))


def _named(words: list[str]) -> KeyPath | None:
    """The key that the last of the words name, the longest name first."""
    for count in (3, 2, 1):
        if len(words) < count:
            continue
        key = _key_of("_".join(words[-count:]).lower())
        if key is not None:
            before = words[-count - 1].lower() if len(words) > count else ""
            return None if before in _NOT_THIS else key
    return None


def _key_of(name: str) -> KeyPath | None:
    names = _number_keys()
    name = _SPELLINGS.get(name, name)
    if name not in names and len(name) >= _LONG_ENOUGH and "_" not in name and "." not in name:
        name = (get_close_matches(name, names, n=1, cutoff=0.92) or [name])[0]
    return names.get(name)


@functools.cache
def _number_keys() -> dict[str, KeyPath]:
    """The keys that take a number by their last part, where only one key has it, and by their whole name."""
    types = spec_types()
    once = Counter(path[-1] for path in types)
    names: dict[str, KeyPath] = {}
    for path, kind in types.items():
        if path[0] in NOT_COMPARED or path == ("train", "seed") or not (kind.takes(int) or kind.takes(float)):
            continue
        names[".".join(path)] = path
        if once[path[-1]] == 1:
            names[path[-1]] = path
    return names


def _value(key: KeyPath, number: str, factor: str | None) -> str | None:
    """The number as the key takes it; None where it does not."""
    try:
        value = float(number.replace(",", "").replace("_", "")) * _FACTORS[factor]
    except ValueError:
        return None
    kind = spec_types()[key]
    if value == int(value) and kind.accepts(int(value)):
        return str(int(value))
    return repr(value) if kind.accepts(value) else None
