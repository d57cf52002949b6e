"""Verdicts: the tool's own form, and what hand-written `-->` lines are taken for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdmpc_lab.notes.verdict import JUDGEMENTS, format_verdict, is_verdict_line, parse_verdict


def test_the_form_of_a_verdict() -> None:
    line = format_verdict("bad", "because it looks\ntoo far", ["agent.horizon=18", "env.opponent={weak: 0.5}"])
    assert line == "--> bad: because it looks too far [cause: agent.horizon=18, env.opponent={weak: 0.5}]"
    assert format_verdict("good", "it wins") == "--> good: it wins"
    for words in ("weil er gewinnt", "car il gagne", "due to the horizon"):  # in whatever language
        assert format_verdict("good", words) == f"--> good: {words}"
        assert parse_verdict(f"--> good: {words}").because == words


@given(
    st.sampled_from(JUDGEMENTS),
    st.text(min_size=1).filter(lambda text: "[cause:" not in text),
    st.sampled_from([(), ("agent.horizon=18",), ("agent.horizon=18", "train.lr=[1, 2]")]),
)
def test_what_is_written_is_read_again(judgement: str, because: str, causes: tuple[str, ...]) -> None:
    line = format_verdict(judgement, because, causes)  # type: ignore[arg-type]
    assert "\n" not in line and is_verdict_line(line)
    found = parse_verdict(line)
    assert (found.judgement, found.causes) == (judgement, causes)
    assert found == parse_verdict(line)
    if "because" not in because.lower():
        assert format_verdict(found.judgement, found.because, found.causes) == line


@pytest.mark.parametrize(
    ("line", "judgement"),
    [
        ("--> fucked because 18! and config error ", "bad"),
        ("--> failed", "bad"),
        ("--> ERRORS everywhere", "bad"),
        ("---> broken reward", "bad"),
        ("--> völlig nutzlos, Fehler in der config", "bad"),
        ("--> crashed after 3 h", "bad"),
        ("--> useless", "bad"),
        ("-->loss is NaN", "bad"),
        ("--> no errors this time", "unclear"),
        ("--> ohne Fehler durchgelaufen", "unclear"),
        ("--> nanometre accuracy, badge earned", "unclear"),
        ("--> not broken, but no config error, so why is it useless", "bad"),
        ("--> learns something", "unclear"),
        ("--> ", "unclear"),
        ("--> good", "good"),
        ("--> Good: error went away", "good"),
        ("--> good enough? broken!", "bad"),
        ("--> unclear: because it failed on one seed", "unclear"),
    ],
)
def test_hand_written_lines(line: str, judgement: str) -> None:
    assert is_verdict_line(line)
    found = parse_verdict(line)
    assert found.judgement == judgement
    assert found.line == line


@pytest.mark.parametrize("line", ["-> what it is", "- a --> b", "a --> b", "", "--", "> --> x", "- --> x"])
def test_other_lines_are_no_verdict(line: str) -> None:
    assert not is_verdict_line(line)


def test_a_reason_may_name_the_word_cause() -> None:
    found = parse_verdict("--> bad: because see [cause: x] above [cause: agent.horizon=18]")
    assert found.because == "see [cause: x] above"
    assert found.causes == ("agent.horizon=18",)
