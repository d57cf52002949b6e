"""A layer of a spec against the schema: every value that does not fit, at its own key, in words."""

from __future__ import annotations

import difflib
import functools
import json
import shlex
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from tdmpc_lab.config.durations import duration_hint
from tdmpc_lab.config.fieldtypes import (
    FieldType,
    KeyPath,
    bare_number_keys,
    required_keys,
    section_types,
    spec_types,
    whole_keys,
)
from tdmpc_lab.config.layers import COMMAND_LINE, Layer, WholeMapping, holds, value_at
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.yaml_strict import YamlPath, resolve_plain

if TYPE_CHECKING:
    from pydantic import TypeAdapter


_LONGEST_FOUND = 60


def found_text(value: Any, raw: str | None) -> str:
    """The value as the user wrote it, on one line, shortened."""
    if isinstance(value, dict):
        return "keys with values"
    if isinstance(value, list):
        return "a list"
    written = json.dumps(value, ensure_ascii=False) if raw is None else " ".join(raw.split())
    if len(written) > _LONGEST_FOUND:
        written = written[: _LONGEST_FOUND - 1] + "…"
    return written or "nothing"


def value_hint(kind: FieldType, value: Any, raw: str | None, key: str, *, shell: bool) -> str:  # noqa: PLR0911
    """What was probably meant; `shell` for a value of the command line, where quotes need quoting."""
    if kind.section:
        return _section_hint(kind.section, kind.nullable, value, key)
    if isinstance(value, list | dict):
        return ""
    if kind.takes(timedelta):
        return duration_hint(value)
    if kind.takes(tuple):
        return f"write a list: [{found_text(value, raw)}]"
    if value is None:
        return 'write "" for no text' if kind.accepts("") else "leave the key out for its default"
    if isinstance(value, str):
        return _text_hint(kind, value)
    written = str(value) if raw is None else raw
    if kind.accepts(written):
        quoted = f'"{written}"'
        return f"write {shlex.quote(f'{key}={quoted}')}" if shell else f"quote it: {quoted}"
    if isinstance(value, float) and value.is_integer() and kind.accepts(int(value)):
        return f"write {int(value)}"
    return ""


def _section_hint(section: type, nullable: bool, value: Any, key: str) -> str:
    if required := required_keys(section):
        return f"write `{key}: {{{', '.join(f'{name}: …' for name in required)}}}`"
    if value is False:
        return "this section can't be off; leave it out for its defaults"
    if value is True or nullable:
        return f"write `{key}: {{}}` for the defaults"
    return "leave the section out for its defaults" if value is None else ""


def _text_hint(kind: FieldType, value: str) -> str:
    """For a text where something else is wanted: a number in quotes, a misspelt choice."""
    meant = resolve_plain(value)
    if not isinstance(meant, str) and meant is not None and kind.accepts(meant):
        return f"drop the quotes: {value}"
    choice = kind.choice(Literal)
    return _nearest(value, [str(allowed) for allowed in choice.args]) if choice else ""


def _nearest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else ""


def unknown_key_hint(path: KeyPath) -> str:
    """The known key that was probably meant, else the keys known there.

    A key of another section that is written the same comes before one of this section that looks alike.
    """
    *parents, name = path
    siblings = _keys_of(tuple(parents))
    plain = name.lower().replace("-", "_")
    if plain in siblings:
        return f"did you mean {plain!r}?"
    leaves = [known for known in spec_types() if known != path and len(known) > 1]
    same = [".".join(known) for known in leaves if known[-1] == plain]
    if same:
        return f"did you mean {' or '.join(same)}?"
    if near := difflib.get_close_matches(plain, siblings, n=1):
        return f"did you mean {near[0]!r}?"
    if near := difflib.get_close_matches(plain, [known[-1] for known in leaves], n=1, cutoff=0.75):
        return "did you mean " + ".".join(next(known for known in leaves if known[-1] == near[0])) + "?"
    return f"known here: {', '.join(siblings)}"


def _keys_of(path: KeyPath) -> list[str]:
    section = spec_types()[path].section if path else Spec
    return list(section_types(section)) if section else []


PHASE_SECTIONS = ("env", "reward")


@functools.cache
def adapter() -> TypeAdapter[Spec]:
    """The validator. Made when first needed: importing pydantic and building takes some 0.2 s."""
    from pydantic import TypeAdapter

    return TypeAdapter(Spec)


def validate_layer(layer: Layer) -> None:
    """Report what is wrong with a layer's values, key by key, and bring them into the form that fits."""
    layer.data = _fitted(layer, layer.data, Spec, ())
    for path, kind in refused(layer.data).items():
        if kind == "missing":
            continue
        value, raw = value_at(layer.data, path), layer.raw.get(path)
        if kind == "unknown":
            layer.report(path, "unknown key", unknown_key_hint(tuple(str(part) for part in path)))
        elif kind == "item key":
            mapping = _type_of(path[:-1]).choice(dict)
            assert mapping is not None
            layer.report(path, f"found the key {path[-1]!r}; allowed: {FieldType.of(mapping.args[0]).words()}")
        else:
            expected = _type_of(path)
            if path[:-1] in layer.raw and path not in layer.raw:  # a bare number that stands for a section
                written, raw = path[:-1], layer.raw[path[:-1]]
            else:
                written = path
            shell = layer.source == COMMAND_LINE
            key = ".".join(str(part) for part in written)
            hint = value_hint(expected, value, raw, key, shell=shell)
            layer.report(written, f"found {found_text(value, raw)}; allowed: {expected.words()}", hint)
    phases = layer.data.get("phases")
    for index in range(len(phases) if isinstance(phases, list) else 0):
        _validate_phase(layer, index)


def _validate_phase(layer: Layer, index: int) -> None:
    """The same for one phase of the curriculum: its `env` and `reward` are parts of a spec."""
    place: YamlPath = ("phases", index)
    phase = value_at(layer.data, place)
    if layer.is_broken(place) or not isinstance(phase, dict):
        return
    for key in phase.keys() - {"steps", *PHASE_SECTIONS, "opponent"}:
        near = difflib.get_close_matches(key, ("steps", *PHASE_SECTIONS, "opponent"), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "known here: steps, env, reward, opponent"
        layer.report((*place, key), "unknown key of a phase", hint)
    steps = phase.get("steps")
    if isinstance(steps, float) and steps.is_integer() and "e" in layer.raw.get((*place, "steps"), "").lower():
        steps = int(steps)  # 1e6, as elsewhere in a spec
        phase = {**phase, "steps": steps}
    if "steps" in phase and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
        found = found_text(steps, layer.raw.get((*place, "steps")))
        layer.report((*place, "steps"), f"found {found}; allowed: a whole number ≥ 1, in environment steps")
    part = _phase_part(layer, place, phase)
    for key in ("id", "self_play"):
        if holds(part.data, ("env", key)):
            part.report(("env", key), "can't change from phase to phase", f"set env.{key} outside of the phases")
    validate_layer(part)
    for problem in part.problems:
        path = (*place, *problem.key.split("."))
        layer.report(path, problem.message, problem.hint, line=problem.line)
    phases = list(layer.data["phases"])
    phases[index] = {**{key: phase[key] for key in phase if key == "steps"}, **part.data}
    layer.data = {**layer.data, "phases": phases}


def _phase_part(layer: Layer, place: YamlPath, phase: dict[str, Any]) -> Layer:
    """A layer of what the phase says of `env` and `reward`; `opponent` is short for `env: {opponent: …}`."""

    def moved(path: YamlPath) -> YamlPath:
        inside = path[len(place) :]
        return ("env", *inside) if inside[:1] == ("opponent",) else inside

    inside = {path for path in (*layer.lines, *layer.raw) if path[: len(place)] == place and len(path) > len(place)}
    part = Layer(layer.source, {key: phase[key] for key in PHASE_SECTIONS if key in phase})
    part.lines = {moved(path): layer.lines[path] for path in inside if path in layer.lines}
    part.raw = {moved(path): layer.raw[path] for path in inside if path in layer.raw}
    part.broken = {moved(path) for path in layer.broken if path[: len(place)] == place and len(path) > len(place)}
    if "opponent" in phase:
        env = part.data.setdefault("env", {})
        if isinstance(env, dict) and "opponent" in env:
            layer.report((*place, "opponent"), "given twice, also in env", "keep one of them")
        elif isinstance(env, dict):
            part.data["env"] = {**env, "opponent": phase["opponent"]}
    return part


def _fitted(layer: Layer, data: Any, section: type, path: KeyPath) -> Any:
    """The values in the form of the schema: `1e6` a whole number, `off` None, `on` and a bare number a section."""
    if not isinstance(data, dict):
        return data
    fitted = dict(data)
    for name, kind in section_types(section).items():
        if name not in data:
            continue
        inside, value = (*path, name), data[name]
        raw = layer.raw.get(inside)
        if kind.section and kind.nullable and (value is False or value is None):
            # `eval:` with all its lines commented out must not turn evaluation off without a word.
            if raw == "":
                layer.report(inside, f"found nothing; allowed: {kind.words()}", f"write `{name}: off`")
            fitted[name] = None
        elif kind.section:
            fitted[name] = _fitted(layer, _as_mapping(value, kind), kind.section, inside)
        elif isinstance(value, dict) and inside in whole_keys():
            fitted[name] = WholeMapping(value)
        elif isinstance(value, float) and value.is_integer() and "e" in (raw or "").lower():
            fitted[name] = int(value) if kind.takes(int) and not kind.takes(float) else value
        elif isinstance(value, int) and kind.takes(str) and kind.takes(int) and "_" in (raw or ""):
            fitted[name] = raw  # the id of an array task: to YAML `1971498_3` is a number
    return fitted


def _as_mapping(value: Any, kind: FieldType) -> Any:
    """What `on` or a bare number stands for in the place of a section; anything else as it is."""
    assert kind.section is not None
    if value is True and kind.nullable:
        return {}
    if isinstance(value, int | float) and not isinstance(value, bool):
        keys = bare_number_keys(kind.section)
        return {**dict.fromkeys(keys), keys[0]: value} if keys else value
    return value


def refused(data: dict[str, Any]) -> dict[YamlPath, str]:
    """The paths that the schema refuses, each with why: value, unknown, item key or missing."""
    from pydantic import ValidationError

    try:
        # Strict validation takes nested mappings for dataclasses from JSON only.
        adapter().validate_json(json.dumps(data))
    except ValidationError as error:
        found: dict[YamlPath, str] = {}
        for row in error.errors(include_url=False, include_context=False, include_input=False):
            path, why = _locate(row["loc"], data)
            found.setdefault(path, "missing" if row["type"] == "missing" else why)
        # Of a mapping where other types fit as well, the entry at fault says more than the whole.
        return {path: why for path, why in found.items() if not _entry_is_named(path, found)}
    return {}


def _entry_is_named(path: YamlPath, found: dict[YamlPath, str]) -> bool:
    key = tuple(str(part) for part in path)
    kind = spec_types().get(key)
    mixed = kind is not None and kind.takes(dict) and len(kind.choices) > 1
    return mixed and any(len(other) > len(path) and other[: len(path)] == path for other in found)


def _locate(location: tuple[str | int, ...], data: dict[str, Any]) -> tuple[YamlPath, str]:
    """The path of the key that pydantic means; its own locations also name members of unions."""
    path: YamlPath = ()
    section: type | None = Spec
    for place, part in enumerate(location):
        if section is None:
            # One level into a list or mapping; the rest of the location tells about the item's type.
            kind = _type_of(path)
            if kind.takes(dict) and len(kind.choices) > 1:  # the member of the union comes first
                entry = next(iter(location[place + 1 :]), None)
                named = isinstance(value_at(data, path), dict) and str(part).startswith("dict") and entry is not None
                return ((*path, entry) if named and entry is not None else path), _entry_or_key(location)
            inside = kind.takes(tuple) if isinstance(part, int) else kind.takes(dict)
            return ((*path, part) if inside else path), _entry_or_key(location)
        path = (*path, part)
        if part not in section_types(section):
            return path, "unknown"
        section = _type_of(path).section
    return path, "value"


def _entry_or_key(location: tuple[str | int, ...]) -> str:
    return "item key" if "[key]" in location else "value"


def _type_of(path: YamlPath) -> FieldType:
    """What a key takes, or an item of a list or mapping."""
    key = tuple(str(part) for part in path)
    if key in spec_types():
        return spec_types()[key]
    holder = spec_types()[key[:-1]]
    base, place = (tuple, 0) if isinstance(path[-1], int) else (dict, 1)
    choice = holder.choice(base)
    assert choice is not None
    return FieldType.of(choice.args[place])
