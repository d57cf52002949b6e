"""What is said about a value that the schema does not take: what was found, what is allowed, what to do."""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal

from tdmpc_lab.config.durations import duration_hint
from tdmpc_lab.config.fieldtypes import FieldType, KeyPath, required_keys, section_types, spec_types
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.yaml_strict import resolve_plain

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
