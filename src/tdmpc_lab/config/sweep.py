"""The `sweep` of a spec: which keys take which values, as axes of rows; the points are the axes' product.

    sweep: {agent.horizon: [4, 6], train.seed: [0, 1]}        a grid: every key is an axis
    sweep: {zip: {agent.horizon: [4, 6], agent.rho: [1, 2]}}  one axis: the values at one place belong together
    sweep: [{agent.horizon: 4}, {agent.horizon: 6}]           one axis: every row is written out

The values are validated by the loader, each as if it stood alone in a file; here their places are kept.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from tdmpc_lab.config.fieldtypes import KeyPath, spec_types
from tdmpc_lab.config.layers import Layer, merge, nested, value_at
from tdmpc_lab.config.serialize import key_word
from tdmpc_lab.config.validation import found_text, unknown_key_hint
from tdmpc_lab.errors import Problem
from tdmpc_lab.yaml_strict import YamlPath

KEY = "sweep"
MOST_POINTS = 1000
_AT: YamlPath = (KEY,)
_LIST = "a list of values, as in [4, 6, 8]"
_FORMS = "keys with lists of values, as in {agent.horizon: [4, 6]}, a list of rows, as in [{agent.horizon: 4}], or off"
_REFUSED = {
    "name": "the jobs of a sweep are one experiment and share its name",
    "slurm": "the jobs of a sweep are one job array, and its tasks ask for the same; write a spec for each request",
    "sweep": "a sweep can't be swept",
    "extends": "a spec extends one file",
}


@dataclass(frozen=True)
class SweepPoint:
    """One point of a sweep: the keys that are swept with its own values, by dotted key."""

    index: int
    """From 0; in a job array the number of the task."""
    count: int
    values: Mapping[str, Any]

    def __str__(self) -> str:
        words = ", ".join(key_word(key, value) for key, value in self.values.items())
        return f"{words or 'nothing changed'} (job {self.index + 1} of {self.count})"

    def as_dict(self) -> dict[str, Any]:
        """As a job's record holds it."""
        return {"index": self.index, "count": self.count, "point": dict(self.values)}


@dataclass(eq=False)
class SweptSetting:
    """One key with one of its values, and the place in the sweep where it stands."""

    key: KeyPath
    place: YamlPath
    home: Layer
    layer: Layer
    """Holds this key alone, for the loader to validate."""
    written: Any
    """The value as it stands in the file."""

    @classmethod
    def at(cls, home: Layer, key: KeyPath, place: YamlPath, value: Any) -> SweptSetting:
        depth = len(place)
        lines = {key + path[depth:]: line for path, line in home.lines.items() if path[:depth] == place}
        raw = {key + path[depth:]: text for path, text in home.raw.items() if path[:depth] == place}
        broken = {key + path[depth:] for path in home.broken if path[:depth] == place}
        return cls(key, place, home, Layer(home.source, nested(key, value), lines, raw, broken=broken), value)

    @property
    def dotted(self) -> str:
        return ".".join(self.key)

    @property
    def value(self) -> Any:
        """The value as a user reads it: as written, with `1e5` as the whole number that the schema wants."""
        return _readable(self.written, value_at(self.layer.data, self.key))

    def placed(self, problem: Problem) -> Problem:
        """A problem told of the key, told of the place in the sweep instead."""
        inside = problem.key.removeprefix(self.dotted)
        return replace(problem, key=".".join(str(part) for part in self.place) + inside)


class SweepRow(NamedTuple):
    """Settings that belong together."""

    place: YamlPath
    home: Layer
    settings: tuple[SweptSetting, ...]

    @property
    def canonical(self) -> str:
        """Equal for rows that set the same."""
        return json.dumps(
            {setting.dotted: value_at(setting.layer.data, setting.key) for setting in self.settings}, sort_keys=True
        )


@dataclass
class Sweep:
    """Axes of rows; none for a spec without a sweep."""

    axes: list[list[SweepRow]] = field(default_factory=list)
    home: Layer | None = None
    """Where the sweep is written."""
    pinned: bool = False
    """An override has taken keys out of the sweep: what is left of two rows may be the same."""
    broken: bool = False
    """Its form is wrong, so that its points are not known."""

    @property
    def settings(self) -> list[SweptSetting]:
        return [setting for axis in self.axes for row in axis for setting in row.settings]

    def finish(self) -> None:
        """After the values were validated: hand their problems to the files, and find rows that say the same."""
        for setting in self.settings:
            setting.home.problems += [setting.placed(problem) for problem in setting.layer.problems]
        self.axes = [self._without_twins(axis) for axis in self.axes]
        count = math.prod(map(len, self.axes))
        if count > MOST_POINTS and self.home is not None:
            message = f"{count:,} points; allowed: at most {MOST_POINTS:,}"
            self.home.report(_AT, message, "split it into several specs")
        self.broken |= not 0 < count <= MOST_POINTS

    def _without_twins(self, axis: list[SweepRow]) -> list[SweepRow]:
        """The rows that differ; reports the others, unless they differed before a key was pinned."""
        first: dict[str, SweepRow] = {}
        kept = []
        for row in axis:
            twin = first.setdefault(row.canonical, row)
            if twin is row or any(setting.layer.broken for setting in row.settings):
                kept.append(row)
            elif not self.pinned:
                place = ".".join(str(part) for part in twin.place)
                row.home.report(row.place, f"says the same as {place}", "keep one of them")
        return kept

    def points(self) -> Iterator[list[SweptSetting]]:
        """The settings of every point, the last axis running fastest."""
        for rows in itertools.product(*self.axes):
            yield [setting for row in rows for setting in row.settings]

    def twin_problem(self, one: Sequence[SweptSetting], other: Sequence[SweptSetting]) -> Problem:
        """Two points come to the same spec although they are written differently."""
        assert self.home is not None  # there are points
        message = f"the points {words_of(one)} and {words_of(other)} are the same job"
        line = self.home.line(_AT)
        return Problem(file=self.home.source, line=line, key=KEY, message=message, hint="keep one of them")

    def stand_in(self) -> Layer:
        """A layer that says of every swept key that its value is not known."""
        return Layer(KEY, broken={setting.key for setting in self.settings})


def _readable(written: Any, fitted: Any) -> Any:
    """The fitted value where it is of the same form: the loader may write a short form out in full."""
    if isinstance(written, dict):
        same = isinstance(fitted, dict) and written.keys() == fitted.keys()
        return {key: _readable(item, fitted[key]) for key, item in written.items()} if same else written
    if isinstance(written, list):
        same = isinstance(fitted, list) and len(written) == len(fitted)
        return [_readable(*pair) for pair in zip(written, fitted, strict=True)] if same else written
    return written if isinstance(fitted, dict | list) else fitted


def layers_of(settings: Sequence[SweptSetting]) -> list[Layer]:
    """A point's settings as layers, one for each place they were written in."""
    layers: dict[int, Layer] = {}
    for setting in settings:
        layer = layers.setdefault(id(setting.home), Layer(setting.home.source))
        layer.data = merge(layer.data, setting.layer.data)
        layer.lines |= setting.layer.lines
        layer.raw |= setting.layer.raw
        layer.broken |= setting.layer.broken
    return list(layers.values())


def take_sweep(overrides: Layer, given: Sequence[KeyPath], files: Sequence[Layer]) -> Sweep:
    """Take `sweep` out of all layers. What is wrong with its form is reported in the layer where it stands.

    It is the spec file's and, over that, the command line's; a file that extends another takes its values,
    not its sweep. A key that is `given` on the command line too is no longer swept.
    """
    written = [(layer, layer.data.pop(KEY)) for layer in (overrides, *files[:1]) if KEY in layer.data]
    for layer in files[1:]:
        layer.data.pop(KEY, None)
        layer.problems[:] = [p for p in layer.problems if p.key != KEY and not p.key.startswith(f"{KEY}.")]
    before = {id(layer): len(layer.broken) for layer, _ in written}
    axes: list[list[SweepRow]] = []
    for layer, value in written:  # the strongest first
        swept = {key for axis in axes for key in _keys(axis)}
        axes += [axis for axis in _read(layer, value) if not axis or not set(_keys(axis)) <= swept]
        if not isinstance(value, dict):
            break  # the whole sweep is said here
    _refuse_overlaps(axes)
    sweep = Sweep(_without_pinned(axes, overrides, given), home=written[0][0] if written else None)
    sweep.pinned = len(sweep.settings) < sum(len(row.settings) for axis in axes for row in axis)
    sweep.broken = any(layer.is_broken(_AT) or len(layer.broken) > before[id(layer)] for layer, _ in written)
    return sweep


def _read(layer: Layer, value: Any) -> list[list[SweepRow]]:
    """The axes of one layer's sweep."""
    if value is False or layer.is_broken(_AT):
        return []
    if isinstance(value, list) and value:
        rows = [_row(layer, index, row) for index, row in enumerate(value)]
        return [[row for row in rows if row is not None]]
    if isinstance(value, dict) and value:
        return [axis for key in value for axis in _mapping_axes(layer, key, value[key])]
    hint = "leave it out, or write `sweep: off`"
    empty = "nothing" if value in (None, [], {}) else found_text(value, layer.raw.get(_AT))
    layer.report(_AT, f"found {empty}; allowed: {_FORMS}", hint if value in (None, [], {}) else "")
    return []


def _mapping_axes(layer: Layer, key: str, value: Any) -> list[list[SweepRow]]:
    place = (KEY, key)
    if key == "zip":
        return _zipped(layer, value)
    path = _known(layer, key, place)
    if path is None or not _is_list(layer, key, place, value):
        return []
    settings = [SweptSetting.at(layer, path, (*place, index), item) for index, item in enumerate(value)]
    return [[SweepRow(setting.place, layer, (setting,)) for setting in settings]]


def _zipped(layer: Layer, value: Any) -> list[list[SweepRow]]:
    place = (KEY, "zip")
    if not isinstance(value, dict) or not value:
        found = found_text(value, layer.raw.get(place)) if value not in ({}, None) else "nothing"
        layer.report(place, f"found {found}; allowed: keys with lists of values of one length")
        return []
    columns = []
    for key, items in value.items():
        path = _known(layer, key, (*place, key))
        if path is not None and _is_list(layer, key, (*place, key), items):
            columns.append([SweptSetting.at(layer, path, (*place, key, i), item) for i, item in enumerate(items)])
    if len({len(column) for column in columns}) > 1:
        lengths = ", ".join(f"{column[0].dotted} has {len(column)}" for column in columns)
        layer.report(place, f"{lengths}; allowed: lists of one length", "without `zip`, all combinations are made")
        return []
    rows = [SweepRow(settings[0].place, layer, settings) for settings in zip(*columns, strict=True)]
    _refuse_overlap_within(rows[:1])
    return [rows] if rows else []


def _row(layer: Layer, index: int, value: Any) -> SweepRow | None:
    place = (KEY, index)
    if not isinstance(value, dict):
        found = found_text(value, layer.raw.get(place))
        layer.report(place, f"found {found}; allowed: keys with values, as in {{agent.horizon: 4}}")
        return None
    known = [(path, key) for key in value if (path := _known(layer, key, (*place, key))) is not None]
    settings = tuple(SweptSetting.at(layer, path, (*place, key), value[key]) for path, key in known)
    row = SweepRow(place, layer, settings)
    _refuse_overlap_within([row])
    return row


def _is_list(layer: Layer, key: str, place: YamlPath, value: Any) -> bool:
    """Whether these are values to choose from; reports what is not."""
    if isinstance(value, list) and value:
        return True
    hint, kind = "", spec_types().get(tuple(key.split(".")))
    if isinstance(value, dict) and value and all(isinstance(name, str) for name in value):
        hint = f"write the whole key: {key}.{next(iter(value))}: […]"
    elif not isinstance(value, list | dict) and value is not None and (kind is None or kind.accepts(value)):
        hint = f"write [{found_text(value, layer.raw.get(place))}]"
    found = "an empty list" if value == [] else found_text(value, layer.raw.get(place))
    layer.report(place, f"found {found}; allowed: {_LIST}", hint)
    return False


def _known(layer: Layer, key: str, place: YamlPath) -> KeyPath | None:
    """The path of a key that can be swept; reports any other."""
    path = tuple(part.strip() for part in key.split("."))
    if path[0] in _REFUSED:
        layer.report(place, f"can't be swept: {_REFUSED[path[0]]}")
        return None
    for length in range(1, len(path) + 1):
        kind = spec_types().get(path[:length])
        if kind is None:
            layer.report(place, "unknown key", unknown_key_hint(path[:length]))
            return None
        if not kind.section and length < len(path) and not kind.takes(dict):
            layer.report(place, "unknown key", f"{'.'.join(path[:length])} has no keys of its own")
            return None
        if not kind.section:
            break
    return path


def _keys(axis: Sequence[SweepRow]) -> list[KeyPath]:
    return list(dict.fromkeys(setting.key for row in axis for setting in row.settings))


def _overlap(one: KeyPath, other: KeyPath) -> bool:
    common = min(len(one), len(other))
    return one[:common] == other[:common]


def _refuse_overlap_within(rows: Sequence[SweepRow]) -> None:
    """Report settings of one row that would set the same."""
    for row in rows:
        for one, other in itertools.combinations(row.settings, 2):
            if _overlap(one.key, other.key):
                row.home.report(other.place, f"{one.dotted} is set beside it", "keep one of them")


def _refuse_overlaps(axes: Sequence[Sequence[SweepRow]]) -> None:
    """Report keys that two axes would set."""
    seen: list[KeyPath] = []
    for axis in axes:
        first = {setting.key: setting for row in reversed(axis) for setting in row.settings}
        for key, setting in first.items():
            if clash := next((other for other in seen if _overlap(other, key)), None):
                setting.home.report(setting.place[:-1], f"{'.'.join(clash)} is swept beside it", "keep one of them")
        seen += first


def _without_pinned(axes: Sequence[list[SweepRow]], overrides: Layer, given: Sequence[KeyPath]) -> list[list[SweepRow]]:
    """The axes without the keys that the command line sets; reports overrides inside a swept section."""
    pinned: set[KeyPath] = set()
    for key in dict.fromkeys(key for axis in axes for key in _keys(axis)):
        inside = [path for path in given if len(path) > len(key) and path[: len(key)] == key]
        if inside:
            swept = ".".join(key)
            message = f"{swept} is swept as a whole, so a key inside it can't be set for all points"
            overrides.report(inside[0], message, f"set it whole, {swept}=…, or turn the sweep off: sweep=off")
        elif _sets(overrides.data, key):
            pinned.add(key)
    if not pinned:
        return list(axes)
    return [
        [row._replace(settings=tuple(s for s in row.settings if s.key not in pinned)) for row in axis] for axis in axes
    ]


def _sets(data: Any, key: KeyPath) -> bool:
    """Whether these values decide the key: it is given, or a section around it is off."""
    for part in key:
        if not isinstance(data, dict):
            return True
        if part not in data:
            return False
        data = data[part]
    return True


def given_keys(overrides: Sequence[str]) -> list[KeyPath]:
    """The keys that `key=value` texts name, those of the sweep itself left out."""
    paths = [tuple(part.strip() for part in text.partition("=")[0].split(".")) for text in overrides]
    return [path for path in paths if path[0] != KEY]


def point_words(overrides: Sequence[str], point: SweepPoint) -> tuple[str, ...]:
    """The overrides that make this one point out of the spec file."""
    kept = [text for text in overrides if text.partition("=")[0].split(".")[0].strip() != KEY]
    return (*kept, *(key_word(key, value) for key, value in point.values.items()), f"{KEY}=off")


def words_of(settings: Sequence[SweptSetting]) -> str:
    """A point for a message: `agent.horizon=4, train.seed=1`."""
    return ", ".join(key_word(s.dotted, s.value) for s in settings) or "(nothing changed)"


def told_of_points(found: Sequence[tuple[str, Sequence[SweptSetting], Problem]], count: int) -> list[Problem]:
    """Problems that only the points' merged values show: one for all points, or naming the point.

    The same problem at the same place is told once, for the first point, with the number of the others.
    """
    groups: dict[Problem, list[tuple[str, Sequence[SweptSetting]]]] = {}
    for words, settings, problem in found:
        groups.setdefault(problem, []).append((words, settings))
    told = []
    for problem, points in groups.items():
        words, settings = points[0]
        own = [s for s in settings if s.home.source == problem.file and problem.key == s.dotted]
        if not own and len(points) == count:
            told.append(problem)
            continue
        others = f" and {len(points) - 1:,} more" if len(points) > 1 else ""
        placed = own[0].placed(problem) if own else problem
        told.append(replace(placed, message=f"{placed.message}; in the point {words}{others}"))
    return told
