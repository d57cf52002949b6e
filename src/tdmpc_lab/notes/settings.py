"""Settings of a config as a person writes them: `Horizon 18`, `lr: 3e-4`, `batch size = 512`, `without backprop`."""

from __future__ import annotations

import functools
import re
from collections import Counter
from difflib import get_close_matches

from tdmpc_lab.config.diff import NOT_COMPARED
from tdmpc_lab.config.fieldtypes import KeyPath, spec_types

_NUMBER = re.compile(
    r"(?<![\w.,-])(?P<number>-?(?:[0-9]{1,3}(?:[,_][0-9]{3})+|[0-9]+)?(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)"
    r"(?P<factor>[kM])?(?![\w]|[.,][0-9]|\s*(?:-|–|/|to\b|bis\b|→|->)\s*[0-9])"
)
# What may stand between a setting's name and its number.
_BETWEEN = re.compile(r"(?:\s*[:=]\s*|\s+(?:of|is|was|at|auf|von|war)\s+|\s+)\Z", re.IGNORECASE)
_WORDS = re.compile(r"(?:[^\W\d][\w.]*[\s-]){0,3}[^\W\d][\w.]*\Z")
_FACTORS = {None: 1, "k": 1_000, "M": 1_000_000}
# A setting behind one of these is what the job did not have.
_NOT_THIS = {
    "no",
    "not",
    "without",
    "instead",
    "of",
    "than",
    "from",
    "vs",
    "versus",
    "statt",
    "kein",
    "keine",
    "keinen",
}
_NOT_THIS |= {"nicht", "ohne", "als", "von"}
_SPELLINGS = {"learning_rate": "lr", "batchsize": "batch_size", "num_envs": "envs", "environments": "envs"}
_LONG_ENOUGH = 6  # letters of a word that may have a typing error
_SECTIONS = {
    "reward.backprop": r"back(?:ward)?[ -]?prop(?:agation)?",
    "reward.shaping": r"(?:reward[ -])?shaping",
}
_SWITCH = re.compile(
    rf"\b(?P<how>no|without|kein|ohne|with|mit)\s+(?:the\s+)?(?P<what>{'|'.join(_SECTIONS.values())})\b", re.IGNORECASE
)
_OFF = ("no", "without", "kein", "ohne")


def number_settings(text: str) -> list[str]:
    """The numbers of the config that a line names, as `agent.horizon=18`, in its order.

    Only where the name can mean one key, and where the line does not say that it was otherwise (`not horizon 18`,
    `9 instead of horizon 18`) or that there were several values (`horizon 5-18`).
    """
    found = []
    for match in _NUMBER.finditer(text):
        before = text[: match.start()]
        between = _BETWEEN.search(before)
        words = _WORDS.search(before[: between.start()]) if between else None
        key = _named(re.split(r"[\s-]+", words[0])) if words else None
        if key is not None and (value := _value(key, match["number"], match["factor"])) is not None:
            found.append(f"{'.'.join(key)}={value}")
    return list(dict.fromkeys(found))


def switch_settings(text: str) -> list[str]:
    """What a line says is off or on, as `reward.backprop=off`."""
    found = []
    for match in _SWITCH.finditer(text):
        key = next(key for key, form in _SECTIONS.items() if re.fullmatch(form, match["what"], re.IGNORECASE))
        found.append(f"{key}={'off' if match['how'].lower() in _OFF else 'on'}")
    return list(dict.fromkeys(found))


def _named(words: list[str]) -> KeyPath | None:
    """The key that the last of the words name, the longest name first."""
    for count in (3, 2, 1):
        if len(words) < count:
            continue
        key = _key_of("_".join(words[-count:]).lower())
        if key is not None:
            before = words[-count - 1].lower() if len(words) > count else ""
            return None if before in _NOT_THIS else key
    return None


def _key_of(name: str) -> KeyPath | None:
    names = _number_keys()
    name = _SPELLINGS.get(name, name)
    if name not in names and len(name) >= _LONG_ENOUGH and "_" not in name and "." not in name:
        name = (get_close_matches(name, names, n=1, cutoff=0.92) or [name])[0]
    return names.get(name)


@functools.cache
def _number_keys() -> dict[str, KeyPath]:
    """The keys that take a number by their last part, where only one key has it, and by their whole name."""
    types = spec_types()
    once = Counter(path[-1] for path in types)
    names: dict[str, KeyPath] = {}
    for path, kind in types.items():
        if path[0] in NOT_COMPARED or path == ("train", "seed") or not (kind.takes(int) or kind.takes(float)):
            continue
        names[".".join(path)] = path
        if once[path[-1]] == 1:
            names[path[-1]] = path
    return names


def _value(key: KeyPath, number: str, factor: str | None) -> str | None:
    """The number as the key takes it; None where it does not."""
    try:
        value = float(number.replace(",", "").replace("_", "")) * _FACTORS[factor]
    except ValueError:
        return None
    kind = spec_types()[key]
    if value == int(value) and kind.accepts(int(value)):
        return str(int(value))
    return repr(value) if kind.accepts(value) else None
