"""Where a spec's values come from: a file, what it extends, the command line; merged, with their places."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tdmpc_lab.errors import Problem, SpecError
from tdmpc_lab.yaml_strict import MAX_BYTES, YamlDocument, YamlPath, read_yaml

COMMAND_LINE = "command line"


class Origin(NamedTuple):
    """Where a value was given: a file or the command line, and the line where there is one."""

    source: str
    line: int | None


@dataclass(eq=False)
class Layer:
    """Values from one source, what is wrong with them already, and the places they stand at."""

    source: str
    data: dict[str, Any] = field(default_factory=dict)
    lines: dict[YamlPath, int] = field(default_factory=dict)
    raw: dict[YamlPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    broken: set[YamlPath] = field(default_factory=set)
    """Paths that have a problem already, so that no second one is reported at or under them."""
    incomplete: bool = False
    """Something that belongs to it could not be read: what the spec says as a whole is not known."""

    @classmethod
    def from_document(cls, source: str, document: YamlDocument) -> Layer:
        return cls(
            source,
            document.data,
            document.lines,
            document.raw,
            list(document.problems),
            set(document.broken),
        )

    @classmethod
    def unreadable(cls, source: str, problems: Sequence[Problem]) -> Layer:
        """A source that nothing is known of."""
        return cls(source, problems=list(problems), broken={()}, incomplete=True)

    def is_broken(self, path: YamlPath) -> bool:
        return any(path[: len(broken)] == broken for broken in self.broken)

    def line(self, path: YamlPath) -> int | None:
        """The line of a path, or of the nearest thing around it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None

    def report(self, path: YamlPath, message: str, hint: str = "", line: int | None = None) -> None:
        """Note a problem at a path, unless it has one."""
        if not self.is_broken(path):
            key = ".".join(str(part) for part in path)
            at = self.line(path) if line is None else line
            self.problems.append(Problem(file=self.source, line=at, key=key, message=message, hint=hint))
            self.broken.add(path)


def holds(data: Any, path: YamlPath) -> bool:
    """Whether something stands at the path."""
    for part in path:
        if not isinstance(data, dict) or part not in data:
            return False
        data = data[part]
    return True


def value_at(data: Any, path: YamlPath) -> Any:
    """What stands at the path, None where nothing does."""
    for part in path:
        inside = (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        )
        if not inside:
            return None
        data = data[part]
    return data


def nested(path: Sequence[str], value: Any) -> dict[str, Any]:
    """The mapping that holds the value at the path and nothing else."""
    first, *rest = path
    return {first: nested(rest, value) if rest else value}


class WholeMapping(dict[str, Any]):
    """A mapping that is one value: it replaces what stands below it, see `constraints.Whole`."""


def merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Both mappings in a new one: `top` wins, mappings are merged in depth, lists and whole mappings are replaced."""
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        deep = isinstance(value, dict) and not isinstance(value, WholeMapping)
        merged[key] = merge(below if isinstance(below, dict) else {}, value) if deep else value
    return merged


def without(data: dict[str, Any], path: YamlPath) -> dict[str, Any]:
    """The mapping without what stands at a path; a path into a list takes the whole list out."""
    if not path:
        return {}
    first, rest = str(path[0]), path[1:]
    inside = data.get(first)
    if rest and isinstance(inside, dict):
        return {**data, first: without(inside, rest)}
    return {key: value for key, value in data.items() if key != first}


def find_origins(layers: Sequence[Layer], main: Layer, known: Iterable[YamlPath]) -> dict[str, Origin]:
    """Where every key of the merged layers was given last (the strongest layer comes first), by dotted key.

    A key of `known` that stands nowhere is looked for at its section in `main`.
    """
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        merged = merge(merged, layer.data)
    origins = {}
    for path in (*known, *_paths(merged, ())):
        homes = [layer for layer in layers if holds(layer.data, path)] if holds(merged, path) else []
        home = homes[0] if homes else main
        origins[".".join(str(part) for part in path)] = Origin(home.source, home.line(path))
    return origins


def find_unset(layers: Sequence[Layer], known: Iterable[YamlPath]) -> frozenset[str]:
    """The dotted keys of `known` that no layer gives: they have their defaults."""
    return frozenset(".".join(map(str, path)) for path in known if not any(holds(layer.data, path) for layer in layers))


def _paths(data: dict[str, Any], parents: YamlPath) -> Iterator[YamlPath]:
    for key, value in data.items():
        yield (*parents, key)
        if isinstance(value, dict):
            yield from _paths(value, (*parents, key))


def read_layers(path: Path) -> tuple[str, list[Layer]]:
    """The file's text and its layers: the file itself first, then what it extends, and so on.

    Never raises for a bad file: a layer that can't be read holds the problems that say so.
    """
    layers: list[Layer] = []
    text = ""
    seen: list[str] = []
    current: Path | None = path
    while current is not None:
        layer, content = _read(current, layers[-1] if layers else None)
        if layer is None:
            break
        text = text if layers else content
        layers.append(layer)
        if layer.incomplete:
            break
        seen.append(os.path.realpath(current))
        current = _parent(current, layer, seen)
    return text, layers


def read_file(path: Path) -> Layer:
    """One file by itself; what is wrong with it is in the layer."""
    layer, _ = _read(path, None)
    assert layer is not None  # without a child that could hold them, its problems are in a layer of its own
    return layer


def _read(path: Path, child: Layer | None) -> tuple[Layer | None, str]:
    """One file. A file that can't be opened is a problem of the file that extends it, if there is one."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        message, hint = _open_problem(path, error)
        if child is None:
            problem = Problem(file=str(path), line=None, key="", message=message, hint=hint)
            return Layer.unreadable(str(path), [problem]), ""
        child.report(("extends",), f"{message}: {path}", hint)
        child.incomplete = True
        return None, ""
    try:
        return Layer.from_document(str(path), read_yaml(content, str(path))), content.decode()
    except SpecError as error:
        return Layer.unreadable(str(path), error.problems), ""


def _open_problem(path: Path, error: OSError | ValueError) -> tuple[str, str]:
    if isinstance(error, FileNotFoundError):
        return "no such file", _similar_file(path)
    if isinstance(error, IsADirectoryError):
        return "this is a folder", "name a YAML file"
    if isinstance(error, OSError):
        return f"can't be read ({error.strerror})", ""
    return "not the name of a file", ""


def _similar_file(path: Path) -> str:
    try:
        names = sorted(other.name for other in path.parent.iterdir() if other.suffix in (".yaml", ".yml"))
    except OSError:
        return f"there is no folder {path.parent} either"
    close = [name for name in names if Path(name).stem == path.name]
    close = close or difflib.get_close_matches(path.name, names, n=1, cutoff=0.75)
    return f"did you mean {path.parent / close[0]}?" if close else ""


def _parent(path: Path, layer: Layer, seen: list[str]) -> Path | None:
    """The file that this one extends, taken out of the layer's values."""
    if "extends" not in layer.data or layer.is_broken(("extends",)):
        return None
    named = layer.data.pop("extends")
    if not isinstance(named, str) or not named.strip() or "\0" in named:
        found = layer.raw.get(("extends",), "") or "no text"
        layer.report(("extends",), f"found {found}; allowed: the name of one YAML file, relative to this one")
        layer.incomplete = True
        return None
    parent = path.parent / named
    real = os.path.realpath(parent)
    if real in seen:
        names = " → ".join(Path(link).name for link in [*seen[seen.index(real) :], real])
        layer.report(("extends",), f"files extend each other in a circle: {names}", "remove one of the links")
        layer.incomplete = True
        return None
    return parent
