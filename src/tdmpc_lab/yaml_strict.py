"""YAML without its traps: what a scalar means is decided here, not by PyYAML's constructors.

Differences to PyYAML's own loader: `3e-4`, `1e6` and `1.` are numbers; `24:00:00` and dates are text; a
number with a leading zero (`010`, octal to some readers) is text; keys are always text; a key given twice, a
tag, a second document and anything that blows up when aliases are expanded are errors. The lines that values
stand on are kept for error messages.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from tdmpc_lab.errors import Problem, SpecError

MAX_BYTES = 1_000_000
MAX_NODES = 10_000
MAX_DEPTH = 50
MAX_KEY = 100  # characters; PyYAML itself does not read keys of more than 1,024

YamlPath = tuple[str | int, ...]

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)", re.ASCII)
_RADIX = re.compile(r"0x[0-9a-fA-F]+|0o[0-7]+|0b[01]+", re.ASCII)
_FLOAT = re.compile(
    r"[-+]?(?=[0-9.])(?=\.?[0-9])(?P<whole>[0-9]+(_[0-9]+)*)?(?P<dot>\.[0-9]*)?(?P<exp>[eE][-+]?[0-9]+)?",
    re.ASCII,
)
_INF = re.compile(r"(?P<sign>[-+]?)\.(inf|Inf|INF)")
_ANCHOR = re.compile(r"^&\S+\s*")
_NAN = (".nan", ".NaN", ".NAN")
_TRUE = ("true", "yes", "on")
_FALSE = ("false", "no", "off")
_LONGEST_NUMBER = 100  # characters; longer ones are no settings, and int() refuses some 4,300 digits and up


@dataclass(frozen=True)
class YamlDocument:
    """What a YAML text says, and where it says it. A path is the keys and list indices down to a value."""

    data: Any
    lines: dict[YamlPath, int]
    """1-based line of every key and list item."""
    raw: dict[YamlPath, str]
    """Every scalar as it was written, quotes included; empty where nothing was written."""
    problems: tuple[Problem, ...] = ()
    """What is wrong although the rest could be read; empty when `parse_yaml` made this."""
    broken: frozenset[YamlPath] = frozenset()
    """Paths whose value in `data` means nothing, because of one of `problems`."""


class _UnreadableError(Exception):
    """The text can't be read at all."""

    def __init__(self, line: int | None, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.line = line
        self.hint = hint


def resolve_plain(text: str) -> str | int | float | bool | None:  # noqa: PLR0911 - one return per kind of scalar
    """What an unquoted scalar means."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in (text.lower(), text.upper(), text.capitalize()):
        if text.lower() in _TRUE:
            return True
        if text.lower() in _FALSE:
            return False
    if len(text) > _LONGEST_NUMBER:
        return text
    if _INT.fullmatch(text):
        return int(text)
    if _RADIX.fullmatch(text):
        return int(text, 0)
    match = _FLOAT.fullmatch(text)
    if match and (match["dot"] or match["exp"]) and not _leading_zero(match["whole"]):
        return float(text)
    if match := _INF.fullmatch(text):
        return -math.inf if match["sign"] == "-" else math.inf
    return math.nan if text in _NAN else text


def _leading_zero(digits: str | None) -> bool:
    return digits is not None and len(digits) > 1 and digits[0] == "0"


def parse_yaml(text: str | bytes, filename: str) -> YamlDocument:
    """Read one mapping. Raises SpecError with every problem found."""
    document = read_yaml(text, filename)
    if document.problems:
        raise SpecError(document.problems)
    return document


def read_yaml(text: str | bytes, filename: str) -> YamlDocument:
    """Like `parse_yaml`, but problems that leave the rest readable are returned with it.

    Raises SpecError where nothing can be read: wrong syntax, no mapping, over a limit.
    """
    try:
        document = _parse(_decode(text), filename)
        if document.data is None and document.problems:
            raise SpecError(document.problems)
        if document.data is None:
            raise _UnreadableError(None, "the file is empty", "a spec holds at least env: {id: …}")
        if not isinstance(document.data, dict):
            kind = "a list" if isinstance(document.data, list) else "a single value"
            raise _UnreadableError(document.lines[()], f"found {kind}; allowed: keys with values, as in `name: demo`")
    except _UnreadableError as error:
        raise SpecError(
            [Problem(file=filename, line=error.line, key="", message=str(error), hint=error.hint)]
        ) from error
    return document


def parse_value(text: str, source: str) -> YamlDocument:
    """Read one value as it stands behind `key=` on a command line; `lines` says nothing here.

    Flow YAML and quotes are understood where the text begins with one of `{ [ " '`; all else is one plain
    scalar, so that `about=fix #12: no shaping` is the text that it looks like. Raises SpecError.
    """
    stripped = text.strip()
    try:
        if stripped[:1] in ("{", "[", '"', "'"):
            return _parse(_decode(stripped), source)
        _decode(stripped)
    except _UnreadableError as error:
        raise SpecError([Problem(file=source, line=None, key="", message=str(error), hint=error.hint)]) from error
    return YamlDocument(data=resolve_plain(stripped), lines={(): 1}, raw={(): stripped})


def _decode(text: str | bytes) -> str:
    """The text without byte order mark, or _UnreadableError when it is too long or no UTF-8."""
    if len(text) > MAX_BYTES:
        raise _UnreadableError(None, f"more than {MAX_BYTES:,} bytes: too long for a spec")
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        decoded.encode()
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise _UnreadableError(line, "not UTF-8 text", "save the file as UTF-8") from error
    except UnicodeEncodeError as error:
        line = error.object.count("\n", 0, error.start) + 1
        raise _UnreadableError(line, "not UTF-8 text", "save the file as UTF-8") from error
    return decoded.removeprefix("\ufeff")


def _parse(text: str, filename: str) -> YamlDocument:
    loader = None
    try:
        loader = _Loader(text)
        root = loader.root()
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = "a NUL byte" if error.character in (0, "\0") else f"the character {_code(error.character)}"
        raise _UnreadableError(line, f"{what} is not allowed in YAML", "remove it") from error
    except yaml.MarkedYAMLError as error:
        raise _explain(error, text) from error
    except (ValueError, OverflowError) as error:  # PyYAML hands "\UFFFFFFFF" to chr() unchecked
        at = loader.get_mark().line + 1 if loader else None
        raise _UnreadableError(at, f"not YAML: {error}", "check the \\ escapes of quoted text") from error
    if root is None:
        return YamlDocument(data=None, lines={(): 1}, raw={})
    reader = _NodeReader(text, filename)
    data = reader.value(root, ())
    return YamlDocument(data, reader.lines, reader.raw, tuple(reader.problems), frozenset(reader.broken))


def _code(character: Any) -> str:
    return f"U+{character if isinstance(character, int) else ord(character):04X}"


_PLAIN, _TEXT, _OTHER = "plain", "text", "other"


class _Loader(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML's parser up to the node tree, with limits, and without any meaning put into scalars."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self._depth = 0
        self._nodes = 0

    def root(self) -> yaml.Node | None:
        """The only document of the text, None when there is none."""
        self.get_event()  # type: ignore[no-untyped-call]
        if self.check_event(yaml.StreamEndEvent):
            return None
        root: yaml.Node | None = self.compose_document()
        if not self.check_event(yaml.StreamEndEvent):
            line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
            raise _UnreadableError(line, "a second document begins here", "a spec is one document: remove the '---'")
        return root

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
        self._depth += 1
        self._nodes += 1
        _check_limits(line, self._depth, self._nodes)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:  # noqa: ARG002 - PyYAML's hook
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _TEXT
        return _OTHER


def _check_limits(line: int, depth: int, nodes: int) -> None:
    if depth > MAX_DEPTH:
        raise _UnreadableError(line, f"nested more than {MAX_DEPTH} levels deep")
    if nodes > MAX_NODES:
        raise _UnreadableError(line, f"more than {MAX_NODES:,} values (aliases counted each time they are used)")


@dataclass
class _NodeReader:
    """Turns nodes into plain values, noting lines, scalars as written, and problems."""

    text: str
    filename: str
    lines: dict[YamlPath, int] = field(default_factory=dict)
    raw: dict[YamlPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    broken: set[YamlPath] = field(default_factory=set)
    nodes: int = 0
    open_nodes: list[yaml.Node] = field(default_factory=list)

    def value(self, node: yaml.Node, path: YamlPath) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        if any(node is opened for opened in self.open_nodes):
            raise _UnreadableError(line, "an alias (*) stands inside the value that it repeats")
        self.nodes += 1
        _check_limits(line, len(self.open_nodes) + 1, self.nodes)
        if node.tag not in (_PLAIN, _TEXT, _OTHER):
            self._problem(path, "a tag (`!…`) is not allowed", "remove it; quote a value that shall be text")
            self.broken.add(path)
            return None
        self.open_nodes.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
            written = self.text[node.start_mark.index : node.end_mark.index].strip()
            self.raw[path] = _ANCHOR.sub("", written)
            return self._scalar(node, path)
        finally:
            self.open_nodes.pop()

    def _scalar(self, node: yaml.Node, path: YamlPath) -> Any:
        if node.tag == _PLAIN:
            return resolve_plain(node.value)
        if has_surrogate(node.value):
            self._problem(path, "half of a surrogate pair (\\ud800 to \\udfff) is no character", "remove it")
            self.broken.add(path)
            return ""
        return str(node.value)

    def _mapping(self, node: yaml.MappingNode, path: YamlPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merges: list[yaml.Node] = []
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or not is_key(key_node.value):
                self._problem(path, f"a key must be a text of at most {MAX_KEY} characters", line=line)
                continue
            key = key_node.value
            if key in first:
                self._problem((*path, key), f"given twice, first in line {first[key]}", "keep one of them", line=line)
                continue
            first[key] = line
            if key == "<<" and key_node.tag == _PLAIN:
                merges.append(value_node)
                continue
            self.lines[(*path, key)] = line
            result[key] = self.value(value_node, (*path, key))
        for merge in merges:
            self._merge(merge, path, result)
        return result

    def _merge(self, node: yaml.Node, path: YamlPath, result: dict[str, Any]) -> None:
        """`<<: *other`: the other mapping's keys, where this one has none of its own."""
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for part in parts:
            line = part.start_mark.line + 1
            if not isinstance(part, yaml.MappingNode):
                self._problem((*path, "<<"), "allowed: an alias (*) of a mapping, or a list of them", line=line)
                continue
            scratch = _NodeReader(self.text, self.filename, nodes=self.nodes, open_nodes=self.open_nodes)
            merged = scratch.value(part, path)
            self.nodes = scratch.nodes
            self.problems += scratch.problems
            self.broken |= scratch.broken
            new = {key: value for key, value in (merged or {}).items() if key not in result}
            result |= new
            depth = len(path)
            self.lines |= {p: line for p, line in scratch.lines.items() if len(p) > depth and p[depth] in new}
            self.raw |= {p: raw for p, raw in scratch.raw.items() if len(p) > depth and p[depth] in new}

    def _problem(self, path: YamlPath, message: str, hint: str = "", line: int | None = None) -> None:
        key = ".".join(str(part) for part in path)
        at = line if line is not None else self.lines[path]
        self.problems.append(Problem(file=self.filename, line=at, key=key, message=message, hint=hint))


def is_key(text: object) -> bool:
    """Whether this can be a key."""
    return isinstance(text, str) and len(text) <= MAX_KEY and not has_surrogate(text)


def has_surrogate(text: str) -> bool:
    """Whether the text holds half of a surrogate pair, which no UTF-8 file can."""
    return any("\ud800" <= character <= "\udfff" for character in text)


# What PyYAML says → the same in plain words, what to do, and whether the fault lies where it began.
_IN_PLAIN_WORDS = (
    (
        "mapping values are not allowed here",
        "a second ':' where none can be",
        "check the indentation, and quote a text that holds ': '",
        False,
    ),
    ("could not find expected ':'", "a line without ':'", "a setting is written `key: value`", True),
    ("found unexpected end of stream", "a quote that is never closed", "close it", True),
    ("but got '<stream end>'", "a bracket that is never closed", "close it", True),
    ("that cannot start any token", "a text can't begin with this character", "quote the text", False),
    (
        "found undefined alias",
        "an alias (*) without its anchor (&)",
        "quote a text that begins with *",
        False,
    ),
    ("second occurrence", "an anchor (&) that was given before", "give it another name", False),
    ("expected <block end>", "wrong indentation", "indent the keys of one section by the same spaces", False),
)


def _explain(error: yaml.MarkedYAMLError, text: str) -> _UnreadableError:
    """The parser's complaint in plain words, at its place."""
    mark = error.problem_mark or error.context_mark
    problem = error.problem or error.context or "wrong syntax"
    words, hint = problem, ""
    if mark is not None and text[mark.index : mark.index + 1] == "\t":
        words, hint = "a tab", "indent with spaces"
    else:
        for said, *explained, at_beginning in _IN_PLAIN_WORDS:
            if said in problem:
                words, hint = explained
                mark = (error.context_mark if at_beginning else None) or mark
                break
    if mark is None:  # PyYAML marks all its syntax errors; nothing says that it must
        return _UnreadableError(None, f"not YAML: {words}", hint)
    return _UnreadableError(mark.line + 1, f"not YAML at column {mark.column + 1}: {words}", hint)
