from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from tdmpc_lab.text import count, duration, heading_time, number, one_line, parse_time, shorten


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (7.9, "0:07"),
        (192, "3:12"),
        (3600, "1:00:00"),
        (11525, "3:12:05"),
        (93784, "1-02:03:04"),
        (-5, "0:00"),
        (None, "?"),
        (float("nan"), "?"),
        (float("inf"), "?"),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5000, "5,000"),
        (-5000, "−5,000"),
        (10**400, f"{10**400:,}"),
        (-150.24, "−150.2"),
        (80.06, "80.1"),
        (1234.5, "1,234.5"),
        (9.81, "9.81"),
        (0.0, "0.00"),
        (-0.0, "0.00"),
        (0.01234, "0.0123"),
        (0.87, "0.87"),
        (1e-5, "1e-05"),
        (2.5e12, "2.5e+12"),
        (float("inf"), "∞"),
        (float("-inf"), "−∞"),
        (float("nan"), "?"),
        (None, "?"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


def test_one_line_joins_lines_and_drops_control_characters() -> None:
    assert one_line("  a\r\n\tb\u2028c \x1b[31md\x00\ud800 ") == "a b c [31md"


def test_shorten_cuts_at_the_width_and_says_so() -> None:
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 6) == "abcde…"
    assert shorten("abcd efgh", 6) == "abcd…"
    assert len(shorten("x" * 100, 10)) == 10


def test_parse_time_keeps_the_offset_and_takes_naive_times_as_local() -> None:
    assert parse_time("2026-02-03T09:14:22+01:00") == datetime(
        2026, 2, 3, 9, 14, 22, tzinfo=timezone(timedelta(hours=1))
    )
    naive = parse_time("2026-02-03T09:14:22")
    assert naive == datetime(2026, 2, 3, 9, 14, 22).astimezone()
    assert naive is not None
    assert naive.tzinfo is not None


@pytest.mark.parametrize("value", [None, 3, "", "yesterday", "2026-13-01", "0001-01-01T00:00:00x"])
def test_parse_time_gives_none_for_what_is_no_time(value: object) -> None:
    assert parse_time(value) is None


def test_heading_time() -> None:
    assert heading_time(datetime(2026, 2, 3, 9, 14, 22, tzinfo=UTC)) == "2026-02-03_09-14-22"


def test_one_thing_and_many() -> None:
    assert [count(n, "job") for n in (0, 1, 2, 2000)] == ["0 jobs", "1 job", "2 jobs", "2,000 jobs"]
    assert [count(n, "entry", "entries") for n in (1, 2)] == ["1 entry", "2 entries"]
