"""Runs put together that differ by their seed alone, and what tells these variants apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from tdmpc_lab.config.diff import NOT_COMPARED, NOT_IN_GROUP, STEPS, diff, group_hash, shown
from tdmpc_lab.config.fieldtypes import spec_types
from tdmpc_lab.config.serialize import flatten
from tdmpc_lab.jobs.ids import natural_key
from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.jobs.variants import point_of, telling_keys, variant_name
from tdmpc_lab.report.runs import Run
from tdmpc_lab.text import shorten

By = Literal["config", "code", "job"]
_ABSENT = "–"
_LONGEST = 48  # of a variant's name
_LONGEST_VALUE = 40


@dataclass(frozen=True)
class Variant:
    """Runs of one config, one for each seed (and stratum)."""

    name: str
    runs: tuple[Run, ...]
    doubles: tuple[tuple[Run, Run], ...] = ()
    """Runs that are left out because another one has the same seed, each with that one."""


@dataclass(frozen=True)
class Difference:
    """A setting in which the variants differ."""

    key: str
    values: tuple[str, ...]
    """One for each variant, as a user writes it; `–` where it has no such setting."""


def variants_of(runs: Sequence[Run], *, over: Sequence[str] = (), by: By = "config") -> list[Variant]:
    """The runs by experiment and config, in the order of their first run.

    `over` are dotted keys in which the runs of one variant may differ: they make its strata. By `code` runs of
    different code are different variants too; by `job` every run is one.
    """
    hashes: dict[str, str] = {}
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        group = run.record.group
        if group not in hashes:
            hashes[group] = group if run.spec is None else group_hash(run.spec, apart_from=(STEPS, *over))
        apart = {"config": "", "code": run.code, "job": run.id}[by]
        groups.setdefault((run.record.experiment, hashes[group], apart), []).append(run)
    variants = [_one_per_seed(group, over) for group in groups.values()]
    return _named(variants)


def stratum(run: Run, over: Sequence[str]) -> tuple[str, ...]:
    """The run's values of these keys."""
    return tuple(value_text(run.config, key) for key in over)


def _one_per_seed(runs: Sequence[Run], over: Sequence[str]) -> Variant:
    """Of several runs of a seed the one that came farthest, of equals the newest: the others are no further seeds."""
    best: dict[tuple[int, tuple[str, ...]], Run] = {}
    for run in runs:
        key = (run.record.seed, stratum(run, over))
        if key not in best or _farther(run) >= _farther(best[key]):
            best[key] = run
    kept = [run for run in runs if best[run.record.seed, stratum(run, over)] is run]
    doubles = [(run, best[run.record.seed, stratum(run, over)]) for run in runs if run not in kept]
    return Variant("", tuple(kept), tuple(doubles))


def _farther(run: Run) -> tuple[int, str, tuple[int, ...]]:
    return run.last_step, run.record.submitted_at, natural_key(run.id)


def _named(variants: Sequence[Variant]) -> list[Variant]:
    """With names that differ: the experiment's where it has one variant, else what tells its variants apart."""
    count = Counter(variant.runs[0].record.experiment for variant in variants)
    one_experiment = len(count) == 1
    names = []
    for variant in variants:
        first = variant.runs[0]
        siblings = [other for other in variants if other.runs[0].record.experiment == first.record.experiment]
        told = "" if len(siblings) == 1 else _told(variant, siblings)
        parts = [told] if told and one_experiment else [first.record.experiment, told]
        names.append(shorten(" · ".join(filter(None, parts)), _LONGEST))
    for more in (_code_words, _job_words):
        names = _told_apart(names, variants, more)
    return [replace(variant, name=name) for variant, name in zip(variants, names, strict=True)]


def _told(variant: Variant, siblings: Sequence[Variant]) -> str:
    """By the names that MLflow shows, where those tell them apart by nothing else than the settings in which they
    differ; else by these settings."""
    place = siblings.index(variant)
    found = [change for change in differences(siblings) if change.key != STEPS]
    records = [other.runs[0].record for other in siblings]
    if _to_the_point(records, {change.key for change in found}):
        name = variant_name(records[place])
        return "" if name == records[place].experiment else name
    return ", ".join(f"{change.key.rpartition('.')[2]} {change.values[place]}" for change in found)


def _to_the_point(records: Sequence[JobRecord], keys: Collection[str]) -> bool:
    """Whether the names of these jobs are different, made in the same way, and name no setting but these.

    A name says in what a job differs from the one that it was compared to, and that one need not be among them.
    """
    names = {variant_name(record) for record in records}
    swept = {bool(point_of(record)) for record in records if telling_keys(record)}
    named = {key for record in records for key in telling_keys(record)}
    return len(names) == len(records) and len(swept) < 2 and named <= set(keys)


def _told_apart(names: Sequence[str], variants: Sequence[Variant], more: Callable[[Variant], str]) -> list[str]:
    """Equal names with more words, where those are not all the same."""
    words: dict[str, set[str]] = {}
    for name, variant in zip(names, variants, strict=True):
        words.setdefault(name, set()).add(more(variant))
    return [
        " · ".join(filter(None, (name, more(variant)))) if len(words[name]) > 1 else name
        for name, variant in zip(names, variants, strict=True)
    ]


def _code_words(variant: Variant) -> str:
    return f"code {variant.runs[0].code[:8]}" if len({run.code for run in variant.runs}) == 1 else ""


def _job_words(variant: Variant) -> str:
    return variant.runs[0].id


def differences(variants: Sequence[Variant]) -> list[Difference]:
    """The settings in which the variants differ, in the order of the schema. Seeds are none, nor is what only says
    where a job runs or how often something is written."""
    configs = [variant.runs[0].config for variant in variants]
    keys: dict[str, None] = {}
    first = variants[0].runs[0]
    for variant in variants[1:]:
        run = variant.runs[0]
        if first.spec is not None and run.spec is not None:
            keys |= dict.fromkeys(change.key for change in diff(first.spec, run.spec))
        else:
            keys |= dict.fromkeys(_unlike(first.config, run.config))
    order = {".".join(path): place for place, path in enumerate(spec_types())}
    found = []
    for key in sorted(filter(_compared, keys), key=lambda key: order.get(key, len(order))):
        values = [value_text(config, key) for config in configs]
        if key == STEPS:
            values = [_all_steps(variant.runs) for variant in variants]
        if len(set(values)) > 1:
            found.append(Difference(key, tuple(values)))
    return found


def _compared(key: str) -> bool:
    return key not in NOT_IN_GROUP and key.partition(".")[0] not in NOT_COMPARED


def _unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterable[str]:
    """Keys whose values differ, of configs that are known as plain values only."""
    mine, theirs = flatten(one), flatten(other)
    return [key for key in {**mine, **theirs} if mine.get(key, _ABSENT) != theirs.get(key, _ABSENT)]


def _all_steps(runs: Iterable[Run]) -> str:
    return " / ".join(dict.fromkeys(value_text(run.config, STEPS) for run in runs))


def value_text(config: Mapping[str, Any], key: str) -> str:
    """A setting of a config in a user's words; `–` where its section is off or it is not there."""
    inside: Any = config
    for part in key.split("."):
        if not isinstance(inside, Mapping) or part not in inside:
            return _ABSENT
        inside = inside[part]
    kind = spec_types().get(tuple(key.split(".")))
    if kind is not None and kind.section and inside is not None:
        return "on"
    return shorten(shown(key, inside), _LONGEST_VALUE)
