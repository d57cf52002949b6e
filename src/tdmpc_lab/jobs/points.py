"""Which point of a sweep a job is, in words: what its record's `sweep` says, long and short."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tdmpc_lab.config.diff import NOT_COMPARED
from tdmpc_lab.config.serialize import key_word
from tdmpc_lab.jobs.metrics import as_int
from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.text import one_line, shorten

_LONGEST_LABEL = 60
_LONGEST_NAME = 3  # a key that is this short already is not abbreviated: lr, rho, tau


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
        key: name if len(name) <= _LONGEST_NAME else "".join(word[:1] for word in name.split("_"))
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
