"""What the schema's annotations allow, in words and as a check. Standard library only."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from tdmpc_lab.config.constraints import Bounds, Duration, Text, Whole
from tdmpc_lab.config.schema import Spec

KeyPath = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of the types that a key takes."""

    base: Any
    """int, float, bool, str, timedelta, Literal, dict, tuple, Any, or the dataclass of a section."""
    bounds: Bounds | None = None
    text: Text | None = None
    duration: Duration | None = None
    whole: Whole | None = None
    args: tuple[Any, ...] = ()
    """The values of a Literal, the item types of a dict or tuple."""

    @property
    def is_section(self) -> bool:
        return isinstance(self.base, type) and dataclasses.is_dataclass(self.base)

    def words(self) -> str:
        """What is allowed, as it stands behind "allowed:" in a message."""
        plain = {bool: "true or false", dict: "keys with values, as in {a: 1}", str: "text"}
        if self.base in (int, float):
            return _number_words(self.base, self.bounds)
        if self.base is Literal:
            return "one of: " + ", ".join(str(value) for value in self.args)
        if self.base is tuple:
            return f"a list, each item {FieldType.of(self.args[0]).words()}"
        if self.is_section:
            number = "a number, or " if bare_number_keys(self.base) else ""
            return f"{number}a section with the keys {', '.join(section_types(self.base))}"
        form = self.text or self.duration
        return form.words if form else plain.get(self.base, "any value")

    def accepts(self, value: Any) -> bool:
        """Whether a value built in Python has this type and is within its limits; not for sections."""
        if self.base is Literal:
            return any(value == allowed and type(value) is type(allowed) for allowed in self.args)
        if self.base is float:
            return _is_number(value) and math.isfinite(value) and _within(value, self.bounds)
        if self.base is int:
            return _is_number(value) and isinstance(value, int) and _within(value, self.bounds)
        if self.base is str:
            return isinstance(value, str) and (self.text is None or _matches(value, self.text))
        return self.base is Any or isinstance(value, self.base)


@dataclasses.dataclass(frozen=True)
class FieldType:
    """Everything that a key takes."""

    choices: tuple[Choice, ...]
    nullable: bool

    @staticmethod
    @functools.cache
    def of(annotation: Any) -> FieldType:
        """Read an annotation with its metadata."""
        members = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
        choices = tuple(_choice(member) for member in members if member is not types.NoneType)
        return FieldType(choices, nullable=types.NoneType in members)

    @property
    def section(self) -> type | None:
        """The dataclass, when the key is a section."""
        return next((choice.base for choice in self.choices if choice.is_section), None)

    def takes(self, base: Any) -> bool:
        return any(choice.base is base for choice in self.choices)

    def choice(self, base: Any) -> Choice | None:
        return next((choice for choice in self.choices if choice.base is base), None)

    def words(self) -> str:
        """What is allowed, as it stands behind "allowed:" in a message."""
        texts = [choice.words() for choice in self.choices]
        if self.nullable:
            texts.append("on or off" if self.section else "null")
        return ", or ".join(texts)

    def accepts(self, value: Any) -> bool:
        return (value is None and self.nullable) or any(choice.accepts(value) for choice in self.choices)


def _choice(annotation: Any) -> Choice:
    metadata: tuple[Any, ...] = ()
    if get_origin(annotation) is Annotated:
        annotation, *rest = get_args(annotation)
        metadata = tuple(rest)
    return Choice(
        base=get_origin(annotation) or annotation,
        bounds=next((entry for entry in metadata if isinstance(entry, Bounds)), None),
        text=next((entry for entry in metadata if isinstance(entry, Text)), None),
        duration=next((entry for entry in metadata if isinstance(entry, Duration)), None),
        whole=next((entry for entry in metadata if isinstance(entry, Whole)), None),
        args=get_args(annotation),
    )


def bare_number_keys(section: type) -> tuple[str, ...]:
    """The key of a section that a bare number in its place sets, and those it leaves without a value, as for a `Ramp`.

    Mostly none.
    """
    keys: tuple[str, ...] = getattr(section, "bare_number", ())
    return keys


@functools.cache
def whole_keys() -> dict[KeyPath, str]:
    """The keys whose mappings are never merged key by key, with the reason."""
    return {path: choice.whole.reason for path, kind in spec_types().items() for choice in kind.choices if choice.whole}


def _number_words(base: Any, bounds: Bounds | None) -> str:
    kind = "a whole number" if base is int else "a number"
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    limits = bounds.limits() if bounds else {}
    return " ".join([kind, " and ".join(f"{signs[name]} {_short(limits[name])}" for name in limits)]).strip()


def _short(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(number)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _within(value: float, bounds: Bounds | None) -> bool:
    limits = bounds.limits() if bounds else {}
    return (
        value >= limits.get("ge", -math.inf)
        and value > limits.get("gt", -math.inf)
        and value <= limits.get("le", math.inf)
        and value < limits.get("lt", math.inf)
    )


def _matches(value: str, text: Text) -> bool:
    longest = len(value) if text.max_length is None else text.max_length
    return len(value) <= longest and re.fullmatch(text.pattern, value) is not None


@functools.cache
def section_types(section: type) -> dict[str, FieldType]:
    """The keys of one section with what they take, in the order of the schema."""
    hints = get_type_hints(section, include_extras=True)
    return {field.name: FieldType.of(hints[field.name]) for field in dataclasses.fields(section)}


def required_keys(section: type) -> list[str]:
    """The keys of one section that have no default."""
    return [
        field.name
        for field in dataclasses.fields(section)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]


@functools.cache
def spec_types() -> dict[KeyPath, FieldType]:
    """Every key of a spec by its path, sections included."""
    return dict(_walk(Spec, ()))


def _walk(section: type, path: KeyPath) -> Iterator[tuple[KeyPath, FieldType]]:
    for name, kind in section_types(section).items():
        yield (*path, name), kind
        if kind.section:
            yield from _walk(kind.section, (*path, name))
