"""What differs between two specs, and which jobs differ by their seed alone. Standard library only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from typing import Any, Final

from tdmpc_lab.config.fieldtypes import KeyPath, section_types, spec_types, whole_keys
from tdmpc_lab.config.retired import without_added
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.config.serialize import flatten, plain, to_dict

# What a job is called and where it runs is no difference between experiments.
NOT_COMPARED = ("name", "about", "why", "compare_to", "slurm", "lint", "mlflow")
# These change where or how often something is written, not what is learned; seeds are what a group is over.
NOT_IN_GROUP = (
    "train.seed",
    "train.device",
    "train.threads",
    "train.log_every",
    "train.checkpoint_every",
    "train.replay_device",
)


STEPS: Final = "train.steps"
"""Says how long a run continues, not what it learns by then: a job that was resumed with more steps stays with its
siblings."""
# Decides when a job is given up, not what it does: no difference, and no other config than before there was this key.
_NOT_COMPARED_KEY = ("train", "env_timeout")


class _Unset(Enum):
    UNSET = "unset"


UNSET: Final = _Unset.UNSET
"""The value of a key of `env.options` that only the other spec has."""


@dataclass(frozen=True)
class Change:
    """One key with its two values. A section that is off or on has the values None and True."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key} {shown(self.key, self.old)} → {shown(self.key, self.new)}"


def diff(old: Spec, new: Spec) -> list[Change]:
    """What changed from `old` to `new`, in the order of the schema; names and resources are left out.

    A section that was switched on is one change, followed by its keys that differ from their defaults.
    """
    return list(_section_changes(Spec, _compared(old), _compared(new), ()))


def group_hash(spec: Spec, *, apart_from: Sequence[str] = ()) -> str:
    """Ten hexadecimal digits that jobs share when only seed, names, resources or how often is written differ.

    Evaluation counts as a difference: what was measured unlike can't be averaged over seeds. `apart_from` are further
    dotted keys that are not to count.
    """
    values = without_added(_compared(spec))
    for key in (*NOT_IN_GROUP, *apart_from):
        *sections, name = key.split(".")
        inside: Any = values
        for section in sections:
            inside = inside.get(section) if isinstance(inside, dict) else None
        if isinstance(inside, dict):
            inside.pop(name, None)
    return hashlib.sha256(_canonical(values).encode()).hexdigest()[:10]


def config_hash(spec: Spec) -> str:
    """Sixteen hexadecimal digits that jobs share when they do the same: only names and resources may differ."""
    return hashlib.sha256(_canonical(without_added(_compared(spec))).encode()).hexdigest()[:16]


def _compared(spec: Spec) -> dict[str, Any]:
    values = {key: value for key, value in to_dict(spec).items() if key not in NOT_COMPARED}
    section, name = _NOT_COMPARED_KEY
    return {**values, section: {key: value for key, value in values[section].items() if key != name}}


def _section_changes(
    section: type, old: Mapping[str, Any], new: Mapping[str, Any], parents: KeyPath
) -> Iterator[Change]:
    for name, kind in section_types(section).items():
        if name not in old:
            continue
        path, before, after = (*parents, name), old[name], new[name]
        if kind.section and (before is None or after is None):
            if before is not after:
                yield Change(".".join(path), before and True, after and True)
            if after is not None and before is None:
                yield from _section_changes(kind.section, _defaults(kind.section), after, path)
        elif kind.section:
            yield from _section_changes(kind.section, before, after, path)
        elif kind.takes(dict) and path not in whole_keys():
            yield from _mapping_changes(flatten(before), flatten(after), path)
        elif _canonical(before) != _canonical(after):
            yield Change(".".join(path), before, after)


def _mapping_changes(old: Mapping[str, Any], new: Mapping[str, Any], path: KeyPath) -> Iterator[Change]:
    for key in {**old, **new}:
        before, after = old.get(key, UNSET), new.get(key, UNSET)
        if _canonical(before) != _canonical(after):
            yield Change(".".join((*path, key)), before, after)


def _defaults(section: type) -> dict[str, Any]:
    """What a section holds that was only switched on; a key without a default is unset."""
    values = {}
    for field in fields(section):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        values[field.name] = UNSET if default is MISSING else plain(default)
    return values


def _canonical(value: Any) -> str:
    """Equal for equal values: the order of keys does not count, 1 and true and "1" differ, NaN is itself."""
    return json.dumps(value, sort_keys=True, default=repr)


def shown(key: str, value: Any) -> str:
    """A value of a spec for reading, as it stands behind its key in a difference."""
    if value is UNSET:
        return str(UNSET.value)
    if value is None:
        kind = spec_types().get(tuple(key.split(".")))
        return "null" if kind is None else "off" if kind.section else "default"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str):
        return value if value and value.isprintable() and " " not in value else json.dumps(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else repr(value)
