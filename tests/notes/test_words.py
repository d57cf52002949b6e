"""Words that a user adds through the command line: nothing of the note is lost by it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tdmpc_lab.errors import NoteError
from tdmpc_lab.notes.note import BEGIN, END, add_bullet, merge_edited, put_verdict, replace_machine_part, take_apart

NEW = replace_machine_part(b"", "##### 7 - 2026-02-03_09-14-22\n- about")
PIECES = [
    *(b"\n", b"\r\n", b"```\n", b"```python\n# 1971498\n", b"--> good: because\n", b"##### 8 - killed\n"),
    *("Größe → 9, 上\n".encode(), b"\xff\xfe\x00", b" " + END.encode() + b"\n", b"see " + BEGIN.encode() + b"\n"),
    *(b"<!-- tdmpc-lab:beginning -->\n", b"<!-- my own -->\n", b"no line end", b"\xed\xa0\x80", b"  \n", b"\t- x\n"),
]
words = st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=8)), max_size=8).map(b"".join)
typed = st.one_of(
    st.text(min_size=1, max_size=40),
    st.sampled_from([END, f"a\n{BEGIN}\n##### 9", "a\r\nb\rc", "\ud800x", "\udcff", "--> x"]),
)


def is_marker(text: bytes) -> bool:
    return any(line.startswith((b"<!-- tdmpc-lab:begin ", END.encode())) for line in (b"x" + text).split(b"\n"))


@settings(deadline=None, max_examples=300)
@given(after=words.filter(lambda text: not is_marker(text)), text=typed.filter(lambda text: text.strip()))
def test_a_bullet_is_added_and_every_byte_stays(after: bytes, text: str) -> None:
    note = NEW.removesuffix(b"\n\n") + after
    new = add_bullet(note, text)
    assert take_apart(new).block == take_apart(note).block
    below = take_apart(new).after
    # What was added is one stretch of bytes: a line end where one was missing, and the bullet.
    start = next((i for i, (a, b) in enumerate(zip(after, below, strict=False)) if a != b), min(len(after), len(below)))
    starts = range(start + 1)
    length = len(below) - len(after)
    assert any(below[:i] + below[i + length :] == after for i in starts)
    lines = below.split(b"\n")
    first = text.replace("\r\n", "\n").replace("\r", "\n").strip().split("\n")[0]
    expected = b"- " + first.encode(errors="surrogateescape" if "\ud800" not in text else "replace")
    assert expected in [line.removesuffix(b"\r") for line in lines]
    assert replace_machine_part(replace_machine_part(new, "other"), "##### 7 - 2026-02-03_09-14-22\n- about") == new


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (NEW, NEW + b"- first\n  second\n"),
        (NEW.removesuffix(b"\n\n"), NEW + b"- first\n  second\n"),
        (NEW.removesuffix(b"\n"), NEW + b"- first\n  second\n"),
        (NEW + b"mine", NEW + b"mine\n- first\n  second\n"),
        (NEW + b"- mine\n\n\n", NEW + b"- mine\n- first\n  second\n\n\n"),
        (NEW + b"- mine  \r\n", NEW + b"- mine  \r\n- first\r\n  second\r\n"),
        (b"", b"- first\n  second\n"),
        (b"##### 8 - killed\n- run", b"##### 8 - killed\n- run\n- first\n  second\n"),
    ],
)
def test_where_a_bullet_goes(before: bytes, after: bytes) -> None:
    assert add_bullet(before, " first\nsecond\n") == after


def test_no_words_or_broken_markers_add_nothing() -> None:
    with pytest.raises(NoteError, match="no words"):
        add_bullet(NEW, " \n ")
    with pytest.raises(NoteError, match="the end marker is missing"):
        add_bullet(NEW.replace(END.encode(), b""), "x")


@settings(deadline=None, max_examples=150)
@given(after=words.filter(lambda text: not is_marker(text)), text=st.text(max_size=30))
def test_a_verdict_stays_in_the_block_and_is_replaced_there(after: bytes, text: str) -> None:
    note = NEW.removesuffix(b"\n\n") + after
    judged = put_verdict(note, "--> bad: because 18")
    assert take_apart(judged).after == after
    assert take_apart(judged).verdict == b"--> bad: because 18"
    rewritten = replace_machine_part(judged, text)
    assert take_apart(rewritten).after == after
    assert take_apart(rewritten).verdict == b"--> bad: because 18"
    again = put_verdict(rewritten, "--> good: because 9")
    assert again == rewritten.replace(b"--> bad: because 18", b"--> good: because 9")
    assert b"--> good" not in replace_machine_part(b"", text)


def test_a_note_without_a_block_gets_one_for_its_verdict() -> None:
    hand_made = b"\xef\xbb\xbf##### 8 - killed\r\n--> fucked because 18!\r\n"
    judged = put_verdict(hand_made, "--> unclear: because of the config")
    block = f"{BEGIN}\r\n--> unclear: because of the config\r\n{END}\r\n".encode()
    assert judged == b"\xef\xbb\xbf" + block + hand_made[3:]
    with pytest.raises(NoteError, match="the begin marker is missing"):
        put_verdict(END.encode() + b"\n", "--> good: because")


def test_a_verdict_is_no_row_of_a_table() -> None:
    note = replace_machine_part(b"", "- a\n\n| x |\n|--:|\n| 1 |")
    judged = put_verdict(note, "--> good: because 1")
    assert b"| 1 |\n\n--> good: because 1\n" + END.encode() in judged
    assert replace_machine_part(judged, "- a\n\n| x |\n|--:|\n| 1 |") == judged
    assert put_verdict(judged, "--> bad: because 2") == judged.replace(b"good: because 1", b"bad: because 2")


def test_the_machine_can_not_speak_a_verdict() -> None:
    note = replace_machine_part(b"", "- a\n--> good: because")
    assert take_apart(note).verdict == b""
    assert replace_machine_part(note, "- a\n--> good: because") == note


def test_an_edited_copy_meets_what_came_meanwhile() -> None:
    base = NEW + b"mine\n"
    edited = NEW + b"mine, better\n"
    assert merge_edited(base, edited, base) == edited
    current = add_bullet(replace_machine_part(base, "COMPLETED"), "a colleague's")
    merged = merge_edited(base, edited, current)
    assert merged == replace_machine_part(NEW, "COMPLETED") + b"mine, better\n- a colleague's\n"
    with pytest.raises(NoteError, match="somebody else"):
        merge_edited(base, edited, NEW + b"theirs\n")
    with pytest.raises(NoteError, match="inside the tool's block"):
        merge_edited(base, edited.replace(b"- about", b"- my about"), base)
    with pytest.raises(NoteError, match="inside the tool's block"):
        merge_edited(base, edited.replace(b"- about", b"- my about"), current)
    with pytest.raises(NoteError, match="the begin marker is missing"):
        merge_edited(base, b"all gone\n", base)
    assert merge_edited(b"by hand", b"by my hand", b"by hand\n- new\n") == b"by my hand\n- new\n"
