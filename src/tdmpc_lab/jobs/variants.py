"""Which variant of its experiment a job is, and which point of a sweep: names, and the variant's colour in charts.

Two jobs are of one variant where their records' `group` is the same. The name is for people.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tdmpc_lab.config.diff import NOT_COMPARED, NOT_IN_GROUP
from tdmpc_lab.config.serialize import key_word
from tdmpc_lab.jobs.find import peek, raw_records
from tdmpc_lab.jobs.metrics import as_int
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.text import one_line, shorten

_LONGEST_LABEL = 60
_LONGEST_KEY = 3  # a key that is this short already is not abbreviated: lr, rho, tau


def point_of(record: JobRecord) -> Mapping[str, Any]:
    """The swept keys with this job's values, by dotted key; empty for a job of no sweep."""
    point = (record.sweep or {}).get("point")
    return point if isinstance(point, dict) else {}


def point_text(record: JobRecord) -> str:
    """`agent.horizon=4, train.seed=1`; empty for a job of no sweep."""
    return one_line(", ".join(key_word(key, value) for key, value in point_of(record).items()))


def place_text(record: JobRecord) -> str:
    """`agent.horizon=4, train.seed=1 (job 2 of 6)`; empty for a job of no sweep."""
    sweep = record.sweep or {}
    index, count = as_int(sweep.get("index")), as_int(sweep.get("count"))
    if index is None or count is None:
        return point_text(record)
    return f"{point_text(record) or 'nothing changed'} (job {index + 1} of {count})"


def overrides_text(record: JobRecord) -> str:
    """`agent.lr=0.001, train.seed=2`: what the command line changed; empty where it changed nothing.

    Without the sweep's own values, which `place_text` has, and without what the job is called and where it runs.
    """
    swept = {key_word(key, value) for key, value in point_of(record).items()}
    words = [text for text in record.overrides if text not in swept and _section(text) not in (*NOT_COMPARED, "sweep")]
    return one_line(", ".join(words))


def _section(override: str) -> str:
    return override.partition("=")[0].split(".")[0].strip()


def what_it_is(record: JobRecord) -> str:
    """One line for a list of jobs: the point by the keys' last parts, then `about`."""
    point = [
        f"{key.rpartition('.')[2]} {key_word(key, value).partition('=')[2]}" for key, value in point_of(record).items()
    ]
    return one_line(" · ".join(part for part in (", ".join(point), record.about) if part))


def point_label(point: Mapping[str, Any], leave_out: Sequence[str] = ()) -> str:
    """A point for a chart's legend: `h4-s1` for agent.horizon=4, train.seed=1; empty for an empty one."""
    names = _short_names(list(point))
    parts = [f"{names[key]}{_short_value(value)}" for key, value in point.items() if key not in leave_out]
    return shorten("-".join(parts), _LONGEST_LABEL)


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """Initials of the keys' last parts; where those are the same, as much of the last parts, or of the keys, as
    tells them apart."""
    last = {key: key.rpartition(".")[2] for key in keys}
    names = {
        key: name if len(name) <= _LONGEST_KEY else "".join(word[:1] for word in name.split("_"))
        for key, name in last.items()
    }
    for length in range(2, max(map(len, last.values()), default=0) + 1):
        count = Counter(names.values())
        names = {key: last[key][:length] if count[name] > 1 else name for key, name in names.items()}
    count = Counter(names.values())
    return {key: key if count[name] > 1 else name for key, name in names.items()}


def _short_value(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "=on", False: "=off", None: "=off"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        value = "_".join(f"{name}{_short_value(item)}" for name, item in value.items()) or "on"
    if isinstance(value, list):
        value = "_".join(_short_value(item).lstrip("=") for item in value)
    return "=" + re.sub(r"[^\w.+=]+", "_", str(value)).strip("_")


# Told apart with any kind of colour vision (after P. Tol's and Okabe and Ito's sets), the first four in grey too.
PALETTE = ("#004488", "#ddaa33", "#bb5566", "#000000", "#6699cc", "#009e73", "#cc79a7", "#999933")

_LONGEST_NAME = 60
_CHANGE = re.compile(r"(?P<key>\S+) (?P<old>.*) → (?P<new>.*)", re.DOTALL)

Variant = tuple[str, str]
"""Experiment and group."""
Submit = tuple[str, str, str, str]
"""When, job id, experiment and group."""


def variant_name(record: JobRecord) -> str:
    """`h4` for a point of a sweep, `horizon 9, backprop on` for what differs from `compare_to`, else for the overrides;
    the experiment's name where there are none. Never the seed. A job that continues from another one or repeats it is
    of that one's variant, unless more was changed."""
    if record.variant is not None:
        return record.variant
    label = point_label(point_of(record), leave_out=NOT_IN_GROUP)
    return label or _name(_own_words(record), record)


def variant_after(record: JobRecord, changes: Sequence[str]) -> str:
    """The variant's name of a job that has this one's config but for these `changes` (`agent.horizon 9 → 5`)."""
    changed = {match["key"]: match["new"] for text in changes if (match := _CHANGE.fullmatch(text))}
    new = [words for key, value in changed.items() if (words := _words(key, value))]
    if not new:
        return variant_name(record)
    if record.variant is not None:
        return _name([record.variant] * (record.variant != record.experiment) + new, record)
    kept = {key: value for key, value in point_of(record).items() if key not in changed}
    label = point_label(kept, leave_out=NOT_IN_GROUP)
    return _name([label, *new] if point_of(record) else [*_own_words(record, set(changed)), *new], record)


def _own_words(record: JobRecord, without: Collection[str] = ()) -> list[str]:
    """The settings that differ from `compare_to`, or else were overridden, in words, `without` some keys."""
    changed = [(match["key"], match["new"]) for text in record.diff if (match := _CHANGE.fullmatch(text))]
    given = [(key.strip(), value.strip()) for key, mark, value in (o.partition("=") for o in record.overrides) if mark]
    told = [_words(key, value) for key, value in changed or given if key not in without]
    return list(filter(None, told))


def _name(words: Sequence[str], record: JobRecord) -> str:
    return shorten(one_line(", ".join(filter(None, words))), _LONGEST_NAME) or record.experiment


def telling_keys(record: JobRecord) -> tuple[str, ...]:
    """The dotted keys in which this job differs from others on purpose: swept, unlike `compare_to`, overridden."""
    changed = [match["key"] for text in record.diff if (match := _CHANGE.fullmatch(text))]
    given = [text.partition("=")[0].strip() for text in record.overrides if "=" in text]
    return tuple(key for key in dict.fromkeys([*point_of(record), *changed, *given]) if _tells(key))


class Colours:
    """A colour for every variant of a project, the same whoever asks: those of one experiment take the palette's in
    the order of their first job, so that what is submitted later changes none."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._known: dict[Variant, str] = {}

    def of(self, record: JobRecord) -> str:
        """The colour of this job's variant. The project's records are read again only for one not seen so far.

        Never raises: where they can't be read it is the first colour.
        """
        variant = (record.experiment, record.group)
        if variant not in self._known:
            others: list[Submit] = []
            with contextlib.suppress(OSError):
                others += _submits(self._project)
            self._known = _colours([*others, (record.submitted_at, record.id, *variant)])
        return self._known[variant]


def _submits(project: Project) -> Iterator[Submit]:
    """Every record that says what is asked for; they are not parsed, for there may be thousands."""
    for job_id, raw in raw_records(project):
        when, experiment, group = (peek(raw, key) for key in ("submitted_at", "experiment", "group"))
        if when is not None and experiment is not None and group is not None:
            yield when, job_id, experiment, group


def _colours(submits: Iterable[Submit]) -> dict[Variant, str]:
    ranks: dict[str, dict[str, int]] = {}
    for _, _, experiment, group in sorted(submits):
        groups = ranks.setdefault(experiment, {})
        groups.setdefault(group, len(groups))
    return {(name, group): colour(rank) for name, groups in ranks.items() for group, rank in groups.items()}


def colour(number: int) -> str:
    """A colour of the palette, which begins again after its end."""
    return PALETTE[number % len(PALETTE)]


def _words(key: str, value: str) -> str:
    """`agent.horizon` and `9` as `horizon 9`; nothing for what tells no variants apart."""
    return f"{key.rpartition('.')[2]} {value}" if _tells(key) else ""


def _tells(key: str) -> bool:
    """Whether jobs that differ in this key are of two variants."""
    return key not in NOT_IN_GROUP and key.partition(".")[0] not in (*NOT_COMPARED, "sweep")
