"""Values given on the command line: `agent.horizon=5`."""

from __future__ import annotations

from collections.abc import Sequence

from tdmpc_lab.config.fieldtypes import whole_keys
from tdmpc_lab.config.layers import COMMAND_LINE, Layer, merge, nested
from tdmpc_lab.errors import Problem, SpecError
from tdmpc_lab.yaml_strict import parse_value


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
