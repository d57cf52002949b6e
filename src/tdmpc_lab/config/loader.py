"""Load a spec: read, extend, override, validate. All problems of a spec come in one SpecError.

Every file and the command line are validated on their own, so that a wrong value is reported although
another one replaces it; what is missing, and the rules between keys, concern the merged values.

Overrides come from the command line (`agent.horizon=5`), or from Python as plain values.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from tdmpc_lab.config.durations import format_duration
from tdmpc_lab.config.fieldtypes import KeyPath, required_keys, spec_types, whole_keys
from tdmpc_lab.config.layers import (
    COMMAND_LINE,
    Layer,
    Origin,
    find_origins,
    find_unset,
    holds,
    merge,
    nested,
    read_layers,
    value_at,
    without,
)
from tdmpc_lab.config.phases import phase_problems
from tdmpc_lab.config.project import profile_of
from tdmpc_lab.config.retired import ADDED, RETIRED
from tdmpc_lab.config.rules import Rule, broken_rules
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.config.serialize import to_dict
from tdmpc_lab.config.sweep import (
    Sweep,
    SweepPoint,
    SweptSetting,
    given_keys,
    layers_of,
    point_words,
    take_sweep,
    told_of_points,
    words_of,
)
from tdmpc_lab.config.validation import adapter, found_text, refused, validate_layer
from tdmpc_lab.errors import Problem, SpecError
from tdmpc_lab.yaml_strict import MAX_DEPTH, MAX_KEY, YamlPath, has_surrogate, is_key, parse_value, read_yaml

_NAME: KeyPath = ("name",)


@dataclass(frozen=True)
class LoadedSpec:
    """A valid spec and what it was made of."""

    spec: Spec
    text: str
    """The file as it was written, without what it extends."""
    path: Path
    overrides: tuple[str, ...]
    origins: Mapping[str, Origin] = field(default_factory=dict, repr=False)
    """Where each key was given, by dotted key; see `origin`."""
    unset: frozenset[str] = field(default=frozenset(), repr=False)
    """Dotted keys that neither file, profile nor command line gives."""
    point: SweepPoint | None = None
    """Which point of the file's sweep this is; None without a sweep."""

    def origin(self, key: str) -> Origin:
        """Where the key (dotted) was given last; one that stands nowhere: the file, at the key's section if any."""
        return self.origins.get(key, Origin(str(self.path), None))


def load_spec(path: Path | str, overrides: Sequence[str] = (), *, profiles: Sequence[Path] = ()) -> LoadedSpec:
    """Load a spec file with what it extends, and `key=value` overrides of the command line.

    The name is that of the file or of an override, never that of an extended file; default: the file's stem.
    Of a file with a sweep this is the first point; all of them are checked.
    `profiles` are files that hold profiles for `slurm`, the strongest first; without them none is applied.
    Raises SpecError with every problem found, in the order of the files, the command line last.
    """
    return load_sweep(path, overrides, profiles=profiles)[0]


def load_stored(path: Path | str, overrides: Sequence[str] = ()) -> LoadedSpec:
    """`load_spec` for a file that `load_resolved` reads: one of an older version is read as it was
    meant, see `tdmpc_lab.config.retired`."""
    return load_sweep(path, overrides, stored=True)[0]


def load_sweep(
    path: Path | str, overrides: Sequence[str] = (), *, profiles: Sequence[Path] = (), stored: bool = False
) -> list[LoadedSpec]:
    """Like `load_spec`, but every point of the file's sweep; one spec for a file without a sweep.

    A key that is overridden is no longer swept. The `overrides` of a point hold its own values too, and make
    this one point out of the file again. `stored`: see `load_stored`.
    """
    path = Path(path)
    text, files = read_layers(path)
    for layer in files if stored else ():
        _modernise(layer)
    layers = [parse_overrides(overrides), *files]
    sweep = take_sweep(layers[0], given_keys(overrides), files)
    for layer in (*layers, *(setting.layer for setting in sweep.settings)):
        validate_layer(layer)
    sweep.finish()
    for parent in files[1:]:
        parent.data.pop("name", None)
    if not any("name" in layer.data or layer.is_broken(_NAME) for layer in layers[:2]):
        _name_by_file(files[0], path)
    layers += profile_of(layers, profiles)
    if not sweep.settings and not sweep.broken:
        origins = find_origins(layers, files[0], spec_types())
        unset = find_unset(layers, spec_types())
        return [LoadedSpec(_merged(layers), text, path, tuple(overrides), origins, unset)]
    return [
        LoadedSpec(
            spec,
            text,
            path,
            point_words(overrides, point),
            find_origins(stack, files[0], spec_types()),
            find_unset(stack, spec_types()),
            point,
        )
        for spec, stack, point in _points(sweep, layers)
    ]


def load_resolved(path: Path | str) -> Spec:
    """Load a file that says everything itself, its name too, as `dump_yaml` writes it, now or in an older version.

    Raises SpecError.
    """
    _, files = read_layers(Path(path))
    for layer in files:
        _modernise(layer)
        validate_layer(layer)
    return _merged(files)


def load_resolved_text(text: str, source: str) -> Spec:
    """The same from the text of such a file; `source` is what errors call it. Raises SpecError."""
    layer = Layer.from_document(source, read_yaml(text.encode(), source))
    _modernise(layer)
    validate_layer(layer)
    return _merged([layer])


def spec_from_dict(data: Mapping[str, Any], source: str = "values") -> Spec:
    """Validate plain nested values (a duration as text or timedelta). Raises SpecError, naming `source`."""
    layer = plain_layer(data, source)
    validate_layer(layer)
    return _merged([layer])


def _modernise(layer: Layer) -> None:
    """Bring a layer up to date that an older version may have written, with every value that was in force."""
    for path in RETIRED:
        if holds(layer.data, path):
            layer.data = without(layer.data, path)
    for path, before in ADDED.items():
        if not holds(layer.data, path):
            layer.data = merge(nested(path, before), layer.data)


def _name_by_file(layer: Layer, path: Path) -> None:
    if spec_types()[_NAME].accepts(path.stem):
        layer.data["name"] = path.stem
    else:
        allowed = spec_types()[_NAME].words()
        message = f"missing, and {path.stem!r}, the file's own, can't stand in for it; allowed: {allowed}"
        layer.report(_NAME, message, "write name: …")


def _merged(layers: list[Layer]) -> Spec:
    """The spec of validated layers, the strongest first. Raises SpecError with all their problems."""
    problems = [problem for layer in layers for problem in layer.problems]
    if not any(layer.incomplete for layer in layers):
        spec, more = _assemble(layers)
        problems += more
        if not problems:
            return spec
    raise _error(layers, problems)


def _error(layers: list[Layer], problems: list[Problem]) -> SpecError:
    """In the order of the files, the command line last."""
    order = {layer.source: index for index, layer in enumerate(layers)} | {COMMAND_LINE: len(layers)}
    return SpecError(sorted(problems, key=lambda problem: (order[problem.file], problem.line or 0)))


def _points(sweep: Sweep, layers: list[Layer]) -> list[tuple[Spec, list[Layer], SweepPoint]]:
    """Every point with its layers. Raises SpecError with the problems of all points, each told once."""
    problems = [problem for layer in layers for problem in layer.problems]
    if any(layer.incomplete for layer in layers):
        raise _error(layers, problems)
    if sweep.broken:
        _, more = _assemble([layers[0], sweep.stand_in(), *layers[1:]])
        raise _error(layers, problems + more)
    made: dict[str, tuple[Spec, list[Layer], list[SweptSetting]]] = {}
    found = []
    for settings in sweep.points():
        stack = [layers[0], *layers_of(settings), *layers[1:]]
        spec, more = _assemble(stack)
        words = words_of(settings)
        found += [(words, settings, problem) for problem in more]
        same = json.dumps({**to_dict(spec), "about": "", "why": ""}, sort_keys=True)
        if same not in made:
            made[same] = (spec, stack, settings)
        elif not sweep.pinned and not problems and not more:
            problems.append(sweep.twin_problem(made[same][2], settings))
    problems += told_of_points(found, sum(1 for _ in sweep.points()))
    if problems:
        raise _error(layers, problems)
    return [
        (spec, stack, SweepPoint(index, len(made), {setting.dotted: setting.value for setting in settings}))
        for index, (spec, stack, settings) in enumerate(made.values())
    ]


def _assemble(layers: list[Layer]) -> tuple[Spec, list[Problem]]:
    """The merged spec, with stand-ins for what is wrong or missing, and the problems that only it shows."""
    data: dict[str, Any] = {}
    for layer in reversed(layers):
        data = merge(data, layer.data)
    for path in sorted({path for layer in layers for path in layer.broken}, key=str):
        data = without(data, path)
    unknown: set[KeyPath] = set()
    problems = []
    for missing in _missing(data):
        unknown.add(missing)
        if not _broken_in(layers, missing):
            problems.append(_missing_problem(layers, missing))
        data = merge(data, nested(missing, 0.0 if spec_types()[missing].takes(float) else "stand-in"))
    spec = adapter().validate_json(json.dumps(data))
    plain = dataclasses.asdict(spec)
    values = {
        ".".join(path): value_at(plain, path)
        for path in spec_types()
        if path not in unknown and not _broken_in(layers, path)
    }
    problems += [_rule_problem(layers, rule, values) for rule in broken_rules(values)]
    if not problems and not any(layer.broken for layer in layers):
        home = _home(layers, "phases") or _main(layers)
        problems += [
            Problem(file=home.source, line=home.line(path), key=".".join(map(str, path)), message=message, hint=hint)
            for path, message, hint in phase_problems(spec)
        ]
    return spec, problems


def _broken_in(layers: list[Layer], path: KeyPath) -> bool:
    return any(layer.is_broken(path) for layer in layers)


def _missing(data: dict[str, Any]) -> list[KeyPath]:
    """The keys without a default that are not given; all of them take a text or a number."""
    paths = [tuple(str(part) for part in path) for path, why in refused(data).items() if why == "missing"]
    return [key for path in paths for key in _required(path)]


def _required(path: KeyPath) -> Iterator[KeyPath]:
    section = spec_types()[path].section
    if section is None:
        yield path
    else:
        for name in required_keys(section):
            yield from _required((*path, name))


def _home(layers: list[Layer], key: str) -> Layer | None:
    """The strongest layer that sets the key, None where the default is in force."""
    return next((layer for layer in layers if holds(layer.data, tuple(key.split(".")))), None)


def _main(layers: list[Layer]) -> Layer:
    """The spec file itself."""
    return next((layer for layer in layers if layer.source != COMMAND_LINE), layers[0])


def _missing_problem(layers: list[Layer], path: KeyPath) -> Problem:
    layer = next((layer for layer in layers if holds(layer.data, path[:-1]) and path[:-1]), _main(layers))
    write = f"write {path[-2]}: {{{path[-1]}: …}}" if path[1:] else f"write {path[0]}: …"
    message = f"missing; allowed: {spec_types()[path].words()}"
    return Problem(file=layer.source, line=layer.line(path), key=".".join(path), message=message, hint=write)


def _rule_problem(layers: list[Layer], rule: Rule, values: Mapping[str, Any]) -> Problem:
    """A broken rule, told at the key that was set last: on the command line, else in the file itself."""
    homes = {key: _home(layers, key) for key in rule.keys}
    at = min(rule.keys, key=lambda key: [*layers, None].index(homes[key]))
    shown = {}
    for key, home in homes.items():
        path = tuple(key.split("."))
        text = found_text(values[key], home.raw.get(path) if home else None)
        if home is None:
            text += ", the default"
        elif key != at:
            line = home.line(path)
            text += f", {home.source}" + (f":{line}" if line else "")
        shown[key] = text
    layer = homes[at] or _main(layers)
    return Problem(file=layer.source, line=layer.line(tuple(at.split("."))), key=at, message=rule.message(at, shown))


def parse_overrides(overrides: Sequence[str]) -> Layer:
    """One layer out of `key=value` texts. Problems are in the layer; two values for one key are one."""
    layer = Layer(COMMAND_LINE)
    given: dict[tuple[str, ...], str] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if path[0] == "sweep" and len(path) > 1 and path[1]:
            path = ("sweep", ".".join(path[1:]))  # the sweep's own keys are dotted: sweep.train.seed=[0, 1]
        if not equals or not all(path):
            _problem(layer, "", f"found {override!r}; allowed: key=value, such as agent.horizon=5")
        elif path[0] == "extends":
            _problem(layer, key, "allowed in a file only")
        elif whole := next((known for known in whole_keys() if path[: len(known)] == known != path), None):
            name = ".".join(whole)
            _problem(layer, ".".join(path), whole_keys()[whole], f"write {name}={{{'.'.join(path[len(whole) :])}: …}}")
        elif clash := next((other for other in given if _overlap(path, other)), None):
            _problem(layer, ".".join(path), _clash_message(path, clash, given[clash]), "keep one of them")
        else:
            given[path] = override
            _add(layer, path, text)
    return layer


def _overlap(path: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether the two are one key, or one lies below the other."""
    common = min(len(path), len(other))
    return path[:common] == other[:common]


def _clash_message(path: tuple[str, ...], other: tuple[str, ...], override: str) -> str:
    if path == other:
        return f"given twice, first as {override!r}"
    place = "below" if len(path) > len(other) else "above"
    return f"lies {place} {'.'.join(other)}, which is given as well, as {override!r}"


def _add(layer: Layer, path: tuple[str, ...], text: str) -> None:
    try:
        document = parse_value(text, COMMAND_LINE)
    except SpecError as error:
        for problem in error.problems:
            _problem(layer, ".".join(path), problem.message, problem.hint)
        layer.broken.add(path)
        return
    for problem in document.problems:
        inside = f".{problem.key}" if problem.key else ""
        _problem(layer, ".".join(path) + inside, problem.message, problem.hint)
    layer.broken |= {path + inside for inside in document.broken}
    layer.raw |= {path + inside: raw for inside, raw in document.raw.items()}
    layer.data = merge(layer.data, nested(path, document.data))


def _problem(layer: Layer, key: str, message: str, hint: str = "") -> None:
    layer.problems.append(Problem(file=COMMAND_LINE, line=None, key=key, message=message, hint=hint))


def plain_layer(data: Mapping[str, Any], source: str) -> Layer:
    """A layer of plain values; what can't stand in a YAML file is reported in it."""
    layer = Layer(source)
    plain = _plain(layer, data, ())
    if isinstance(plain, dict):
        layer.data = plain
    else:
        layer.report((), f"found {repr(data)[:60]}; allowed: a mapping")
    return layer


def _plain(layer: Layer, value: Any, path: YamlPath) -> Any:
    if len(path) > MAX_DEPTH:
        layer.report(path[:1], f"nested more than {MAX_DEPTH} levels deep")
        return None
    if isinstance(value, Mapping):
        return _plain_mapping(layer, value, path)
    if isinstance(value, list | tuple):
        return [_plain(layer, item, (*path, index)) for index, item in enumerate(value)]
    if isinstance(value, timedelta) and value > timedelta(0) and not value % timedelta(seconds=1):
        return format_duration(value)
    if value is None or isinstance(value, int | float) or (isinstance(value, str) and not has_surrogate(value)):
        return value
    layer.report(path, f"found {repr(value)[:60]}; allowed: text, numbers, true, false, null, lists and mappings")
    return None


def _plain_mapping(layer: Layer, value: Mapping[Any, Any], path: YamlPath) -> dict[str, Any]:
    plain = {}
    for key, item in value.items():
        if is_key(key):
            plain[key] = _plain(layer, item, (*path, key))
        else:
            layer.report((*path, repr(key)[:60]), f"a key must be a text of at most {MAX_KEY} characters")
    return plain
