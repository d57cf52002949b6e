"""What YAML texts mean here, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tdmpc_lab.errors import SpecError
from tdmpc_lab.yaml_strict import parse_value, parse_yaml, read_yaml, resolve_plain

SCALARS: list[tuple[str, Any]] = [
    ("3e-4", 3e-4),
    ("1e6", 1e6),
    ("-1E+2", -100.0),
    ("1.", 1.0),
    (".5", 0.5),
    ("-0.5", -0.5),
    ("1.e3", 1000.0),
    ("1_000.5", 1000.5),
    ("0.25", 0.25),
    ("00.5", "00.5"),
    (".", "."),
    ("e5", "e5"),
    ("1e", "1e"),
    ("1.5.2", "1.5.2"),
    ("0", 0),
    ("+3", 3),
    ("-7", -7),
    ("1_000", 1000),
    ("500_000", 500_000),
    ("1__0", "1__0"),
    ("_1", "_1"),
    ("010", "010"),
    ("0x1F", 31),
    ("0o17", 15),
    ("0b101", 5),
    ("9" * 5000, "9" * 5000),
    ("04:00:00", "04:00:00"),
    ("24:00:00", "24:00:00"),
    ("1-12:00:00", "1-12:00:00"),
    ("2026-02-03", "2026-02-03"),
    ("2026-02-03T09:14:22Z", "2026-02-03T09:14:22Z"),
    ("2080ti:1", "2080ti:1"),
    ("16G", "16G"),
    (".inf", math.inf),
    ("-.INF", -math.inf),
    ("inf", "inf"),
    ("", None),
    ("~", None),
    ("null", None),
    ("NULL", None),
    ("none", "none"),
    ("y", "y"),
    *[(word, True) for word in ("true", "True", "TRUE", "yes", "Yes", "on", "ON")],
    *[(word, False) for word in ("false", "False", "no", "No", "NO", "off", "Off")],
    ("yEs", "yEs"),
    ("=", "="),
]


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_plain_scalars(text: str, value: Any) -> None:
    for found in (
        resolve_plain(text),
        parse_yaml(f"key: {text}", "f").data["key"],
        parse_value(text, "c").data,
    ):
        assert found == value
        assert type(found) is type(value)


def test_nan() -> None:
    assert all(math.isnan(resolve_plain(text)) for text in (".nan", ".NaN", ".NAN"))


def test_quoted_scalars_are_text_and_keys_are_text_as_written() -> None:
    text = "on: 'off'\n1_0: \"5\"\n2026-01-01: |\n  a\n  b\n~: >-\n  c\n  d\n'x': ''\n"
    data = {"on": "off", "1_0": "5", "2026-01-01": "a\nb\n", "~": "c d", "x": ""}
    assert parse_yaml(text, "f").data == data


def test_lines_and_raw_text() -> None:
    document = parse_yaml('\ufeffa: 1_0\r\nb:\r\n  c: [x,\r\n      "y"]\r\n  d:\r\n', "f")
    assert document.data == {"a": 10, "b": {"c": ["x", "y"], "d": None}}
    assert document.lines == {
        (): 1,
        ("a",): 1,
        ("b",): 2,
        ("b", "c"): 3,
        ("b", "c", 0): 3,
        ("b", "c", 1): 4,
        ("b", "d"): 5,
    }
    assert document.raw == {("a",): "1_0", ("b", "c", 0): "x", ("b", "c", 1): '"y"', ("b", "d"): ""}


def test_bytes_and_non_ascii() -> None:
    assert parse_yaml("a: ü 🎈\n".encode(), "f").data == {"a": "ü 🎈"}
    assert parse_yaml("\ufeffa: 1".encode(), "f").data == {"a": 1}


def test_aliases_and_merge_keys() -> None:
    text = """
base: &base {a: 1, b: {c: 2}}
more: &more
  a: 9
  d: 4
one: *base
two:
  <<: *base
  a: 5
three: {<<: [*base, *more]}
"""
    document = parse_yaml(text, "f")
    assert document.data["one"] == {"a": 1, "b": {"c": 2}}
    assert document.data["two"] == {"a": 5, "b": {"c": 2}}
    assert document.data["three"] == {"a": 1, "b": {"c": 2}, "d": 4}
    assert document.data["one"]["b"] is not document.data["two"]["b"]
    assert document.lines["two", "b", "c"] == 2
    assert document.lines["two", "a"] == 9
    assert document.raw["three", "d"] == "4"
    assert document.raw["two", "a"] == "5"
    assert parse_yaml("a: &x 5\nb: *x", "f").raw == {("a",): "5", ("b",): "5"}
    assert parse_yaml('"<<": 5', "f").data == {"<<": 5}


def only_problem(text: str | bytes) -> str:
    with pytest.raises(SpecError) as caught:
        parse_yaml(text, "f.yaml")
    (problem,) = caught.value.problems
    return str(problem)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "f.yaml: the file is empty"),
        ("# only a comment\n", "f.yaml: the file is empty"),
        ("---\n", "f.yaml: the file is empty"),
        ("- a\n", "f.yaml:1: found a list; allowed: keys with values"),
        ("\n5", "f.yaml:2: found a single value; allowed: keys with values"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2: a second document begins here"),
        ("a: b: c", "f.yaml:1: not YAML at column 5: a second ':'"),
        ("a:\n\tb: 1", "f.yaml:2: not YAML at column 1: a tab (indent with spaces)"),
        ("a: 1\nb: 'x\n\n", "f.yaml:2: not YAML at column 4: a quote that is never closed"),
        ("a: 1\nb: {c: [1, 2\n\n", "f.yaml:2: not YAML at column 8: a bracket that is never closed"),
        ("a: 1\nfoo\nb: 2", "f.yaml:2: not YAML at column 1: a line without ':'"),
        ("a: 1\nb: @x", "f.yaml:2: not YAML at column 4: a text can't begin with this character"),
        ("a: *x", "f.yaml:1: not YAML at column 4: an alias (*) without its anchor"),
        ("a: &x 1\nb: &x 2", "f.yaml:2: not YAML at column 4: an anchor (&) that was given before"),
        ("a:\n    b: 1\n  c: 2", "f.yaml:3: not YAML at column 3: wrong indentation"),
        ("a: [1, 2}", "f.yaml:1: not YAML at column 9: expected ',' or ']', but got '}'"),
        ('a: 1\nb: "\\UFFFFFFFF"', "f.yaml:2: not YAML: "),
        ("a: 1\nb: \0", "f.yaml:2: a NUL byte is not allowed in YAML"),
        ("a: \x07", "f.yaml:1: the character U+0007 is not allowed"),
        (b"a: 1\nb: \xff", "f.yaml:2: not UTF-8 text (save the file as UTF-8)"),
        ("a: 1\nb: \ud800", "f.yaml:2: not UTF-8 text"),
        ("a: 1".encode("utf-16"), "f.yaml:1: not UTF-8 text"),
        ('a: "\\ud800"', "f.yaml:1: a: half of a surrogate pair"),
        ("a: &x [1, *x]", "f.yaml:1: an alias (*) stands inside the value that it repeats"),
        ("a: &x {<<: *x}", "f.yaml:1: an alias (*) stands inside the value that it repeats"),
        ("<<: 5\na: 1", "f.yaml:1: <<: allowed: an alias (*) of a mapping"),
        ("? [a]\n: 1", "f.yaml:1: a key must be a text"),
        (f"? {'k' * 101}\n: 1", "f.yaml:1: a key must be a text of at most 100 characters"),
        ("a: {b: 1,\n  b: 2}", "f.yaml:2: a.b: given twice, first in line 1 (keep one of them)"),
        ("a: !!python/object/apply:os.system [ls]", "f.yaml:1: a: a tag (`!…`) is not allowed"),
        ("a: !foo {b: 1}", "f.yaml:1: a: a tag"),
        ("a: [1, !!str 5]", "f.yaml:1: a.1: a tag"),
        ("!foo {b: 1}", "f.yaml:1: a tag"),
        ("[" * 10_000, "f.yaml:1: nested more than 50 levels deep"),
        ("a: &a [[[[[[[[[[1]]]]]]]]]]\n" + "b: " + "[" * 45 + "*a" + "]" * 45, "nested more than 50 levels"),
        ("a: [" + "1," * 10_000 + "]", "f.yaml:1: more than 10,000 values"),
        ("a: " + "x" * 1_000_000, "f.yaml: more than 1,000,000 bytes"),
    ],
)
def test_refused(text: str | bytes, expected: str) -> None:
    assert expected in only_problem(text)


def test_alias_bombs_are_refused() -> None:
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "more than 10,000 values" in only_problem("\n".join(["a0: &a0 [1, 2]", *levels]))
    merges = [f"a{n}: &a{n} {{x: *a{n - 1}, y: *a{n - 1}, <<: *a{n - 1}}}" for n in range(1, 12)]
    assert "more than 10,000 values" in only_problem("\n".join(["a0: &a0 {z: 1}", *merges]))


def test_every_problem_is_reported_and_the_rest_is_read() -> None:
    document = read_yaml("a: 1\na: 2\nb: !x 3\nc:\n  d: 4\n  <<: {e: !y 5, f: 6}\n", "f.yaml")
    assert [(problem.line, problem.key) for problem in document.problems] == [(2, "a"), (3, "b"), (6, "c.e")]
    assert document.data == {"a": 1, "b": None, "c": {"d": 4, "e": None, "f": 6}}
    assert document.broken == {("b",), ("c", "e")}


def test_a_tag_of_a_merged_mapping() -> None:
    assert "f.yaml:1: a tag" in only_problem("<<: !x {a: 1}")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (" 5 ", 5),
        ("fix #12: no shaping", "fix #12: no shaping"),
        ("*x", "*x"),
        ("{a: 1, b: [x, 1e3]}", {"a": 1, "b": ["x", 1000.0]}),
        ("[x, y]", ["x", "y"]),
        ("'5'", "5"),
        ('"a\\n"', "a\n"),
    ],
)
def test_values_of_the_command_line(text: str, value: Any) -> None:
    assert parse_value(text, "command line").data == value


def test_raw_text_of_a_value() -> None:
    assert parse_value("{a: [1_0]}", "c").raw == {("a", 0): "1_0"}
    assert parse_value(" no ", "c").raw == {(): "no"}


@pytest.mark.parametrize("text", ["{a: 1", "'", "\udcff", "[\udcff]"])
def test_wrong_values_of_the_command_line(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_value(text, "command line")
    assert caught.value.problems[0].file == "command line"


yaml_like = st.lists(
    st.sampled_from(
        [*"abc:-?[]{},&*!|>'\"%@`#\n\t \\~<=x01.e_/", "\n  ", ": ", "- ", "<<: ", "&a ", "*a", "!!", "---\n"]
    )
).map("".join)


@settings(deadline=None, max_examples=400)
@given(st.text() | yaml_like)
@example('"\\x')
@example("%YAML 9999999999999999999.1\n---\na: 1")
@example("%TAG ! tag:%ff\n---\n!a b: 1")
@example("!<%ff> a: 1")
@example("? ? ? a")
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        assert isinstance(parse_yaml(text, "f").data, dict)
    except SpecError as error:
        assert error.problems
    try:
        parse_value(text, "c")
    except SpecError as error:
        assert error.problems


@settings(deadline=None, max_examples=200)
@given(st.binary())
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        parse_yaml(content, "f")
    except SpecError as error:
        assert error.problems
