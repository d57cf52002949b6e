from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tdmpc_lab.errors import NoteError
from tdmpc_lab.notes import note as note_module
from tdmpc_lab.notes.note import BEGIN, END, replace_machine_part, update_note

B, E = BEGIN.encode(), END.encode()


def test_a_new_note_is_the_block_and_a_blank_line(tmp_path: Path) -> None:
    path = tmp_path / "notes" / "7.md"
    update_note(path, "##### 7\n- x\n", tmp_path / "lock")
    assert path.read_bytes() == B + b"\n##### 7\n- x\n" + E + b"\n\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["7.md"]
    # An empty file holds nobody's words either.
    path.write_bytes(b"")
    update_note(path, "##### 7\n- x\n", tmp_path / "lock")
    assert path.read_bytes() == B + b"\n##### 7\n- x\n" + E + b"\n\n"


def test_the_first_marker_tells_a_person_where_to_write() -> None:
    assert BEGIN.startswith("<!--")
    assert BEGIN.endswith("-->")
    assert "write your own words below its end" in BEGIN


# Whole lines, then the pieces that real files are made of: line ends of every kind, fences, invalid UTF-8,
# and text that looks like a marker but is none.
PIECES = [
    b"\n",
    b"\r\n",
    b"\r",
    b"```\n",
    b"--> good: because\n",
    "Größe → 9\n".encode(),
    b"\xff\xfe\x00",
    b" " + E + b"\n",
    b"see " + B + b"\n",
    b"> " + E + b"\n",
    b"\t" + B + b"\n",
    b"<!-- tdmpc-lab:beginning -->\n",
    b"<!-- tdmpc-lab: end -->\n",
    b"<!-- my own comment -->\n",
    b"\xef\xbb\xbf",
]
humans = st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=12)), max_size=8).map(b"".join)
machine_texts = st.one_of(st.text(max_size=60), st.sampled_from([f"a\n{END}\nb", f"{BEGIN}\n{BEGIN}", "\\1\\g<0>"]))


def holds_marker(text: bytes) -> bool:
    return any(line.startswith((b"<!-- tdmpc-lab:begin ", E)) for line in text.split(b"\n"))


@settings(deadline=None, max_examples=300)
@given(
    before=humans,
    after=humans,
    old=machine_texts,
    new=machine_texts,
    line_end=st.sampled_from([b"\n", b"\r\n"]),
)
@example(before=b"\xef\xbb\xbf", after=b"", old="a", new="b", line_end=b"\n")
@example(before=b"", after=b"--> good", old="a", new="b", line_end=b"\r\n")
def test_a_persons_bytes_survive(before: bytes, after: bytes, old: str, new: str, line_end: bytes) -> None:
    if before not in (b"", b"\xef\xbb\xbf"):
        before += line_end
    assume(not holds_marker(before.removeprefix(b"\xef\xbb\xbf")))
    assume(not holds_marker(b"x" + after))
    inner = replace_machine_part(b"", old).removesuffix(b"\n\n").replace(b"\n", line_end)
    note = before + inner + after
    once = replace_machine_part(note, new)
    assert once.startswith(before + B + line_end)
    assert once.endswith(E + after)
    block = once[len(before) : len(once) - len(after)]
    expected = replace_machine_part(b"", new).removesuffix(b"\n\n")
    assert block.replace(b"\r\n", b"\n") == expected
    assert (b"\r\n" in block) is (line_end == b"\r\n")
    assert replace_machine_part(once, new) == once
    assert replace_machine_part(once, old) == note


@settings(deadline=None, max_examples=150)
@given(st.text(), st.sampled_from([END, BEGIN, "<!-- tdmpc-lab:end", "\r" + END, END + "\ud800"]), st.text())
def test_the_tools_own_text_never_holds_a_marker(head: str, marker: str, tail: str) -> None:
    note = replace_machine_part(b"", f"{head}\n{marker}\n{tail}")
    assert note.count(b"<!-- tdmpc-lab:") == 2
    assert replace_machine_part(note, "x") == B + b"\nx\n" + E + b"\n\n"
    assert b"\r" not in note


BROKEN = [
    (b"only my words\n", "the begin marker is missing"),
    (b"\n", "the begin marker is missing"),
    (b"x " + B + b"\n" + E, "the begin marker is missing"),
    (E + b"\n", "the begin marker is missing"),
    (B + b"\nx\n", "the end marker is missing"),
    (B + b"\nx " + E + b"\n", "the end marker is missing"),
    (B + b"\n" + E + b"\n```\n" + E + b"\n```\n", "the end marker stands more than once, on lines 2 and 4"),
    (b"a\n" + B + b"\n" + B + b"\n" + E, "the begin marker stands more than once, on lines 2 and 3"),
    (b"a\n" + E + b"\n" + B + b"\n", r"the end marker \(line 2\) stands above the begin marker"),
    (B + b" my words\n" + E, "line 1 is broken: the begin marker must stand alone"),
    (B + b" my words -->\n" + E, "line 1 is broken: the begin marker must stand alone"),
    (B[:-3] + b"\n" + E, "line 1 is broken: the begin marker must stand alone"),
    (B + b"\n<!-- tdmpc-lab:end", "line 2 is broken: the end marker must be whole"),
]


@pytest.mark.parametrize(("content", "message"), BROKEN)
def test_broken_markers_are_named_and_nothing_is_touched(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "7.md"
    path.write_bytes(content)
    with pytest.raises(NoteError, match=rf"7\.md: {message}.*; nothing was written.*move the file away"):
        update_note(path, "new", tmp_path / "lock")
    assert path.read_bytes() == content


def test_a_reworded_first_line_is_still_the_marker() -> None:
    old = b"<!-- tdmpc-lab:begin | other words -->  \r\nx\r\n" + E + b"  --> good\r\n"
    assert replace_machine_part(old, "y") == B + b"\r\ny\r\n" + E + b"  --> good\r\n"


def test_nothing_new_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "7.md"
    update_note(path, "x", tmp_path / "lock")
    os.utime(path, (1_000_000, 1_000_000))
    update_note(path, "x", tmp_path / "lock")
    assert path.stat().st_mtime == 1_000_000
    update_note(path, "y", tmp_path / "lock")
    assert path.stat().st_mtime != 1_000_000


def test_permissions_and_links_are_kept(tmp_path: Path) -> None:
    real = tmp_path / "real.md"
    update_note(real, "x", tmp_path / "lock")
    real.chmod(0o664)
    link = tmp_path / "7.md"
    link.symlink_to("real.md")
    update_note(link, "y", tmp_path / "lock")
    assert link.is_symlink()
    assert real.read_bytes() == B + b"\ny\n" + E + b"\n\n"
    assert real.stat().st_mode & 0o777 == 0o664


def test_a_note_that_can_not_be_written_is_a_note_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder.md").mkdir()
    with pytest.raises(NoteError, match=r"folder\.md: the note can't be updated"):
        update_note(tmp_path / "folder.md", "x", tmp_path / "lock")

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "7.md"
    update_note(path, "x", tmp_path / "lock")
    monkeypatch.setattr(note_module, "write_atomic", full)
    with pytest.raises(NoteError, match="No space left"):
        update_note(path, "y", tmp_path / "lock")
    assert b"\nx\n" in path.read_bytes()


WRITER = """
import sys
from pathlib import Path
from tdmpc_lab.notes.note import update_note
name, folder = sys.argv[1], Path(sys.argv[2])
sys.stdin.read(1)
for turn in range(10):
    update_note(folder / "7.md", f"- {name} {turn}\\n" + f"- {name} {turn} end\\n", folder / "lock")
"""
PERSON = """
import sys
from pathlib import Path
from tdmpc_lab.files import file_lock, write_atomic
name, folder = sys.argv[1], Path(sys.argv[2])
sys.stdin.read(1)
for turn in range(10):
    with file_lock(folder / "lock"):
        note = folder / "7.md"
        write_atomic(note, note.read_bytes() + f"--> {name} {turn}\\n".encode())
"""


def test_twenty_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    update_note(tmp_path / "7.md", "- first\n", tmp_path / "lock")
    jobs, people = [f"job{number}" for number in range(10)], [f"person{number}" for number in range(10)]
    scripts = {**dict.fromkeys(jobs, WRITER), **dict.fromkeys(people, PERSON)}
    running = [
        subprocess.Popen([sys.executable, "-c", code, name, str(tmp_path)], stdin=subprocess.PIPE)
        for name, code in scripts.items()
    ]
    try:
        for process in running:  # all wait for this, so that they write at the same time
            assert process.stdin is not None
            process.stdin.write(b"x")
            process.stdin.close()
        assert [process.wait(timeout=60) for process in running] == [0] * len(running)
    finally:
        for process in running:
            process.kill()
            process.wait()
    text = (tmp_path / "7.md").read_text()
    block, below = text.split(END + "\n\n")
    lines = block.splitlines()
    assert lines[0] == BEGIN
    assert lines[2] == f"{lines[1]} end"
    assert lines[1] in {f"- {name} 9" for name in jobs}
    for name in people:
        said = [line for line in below.splitlines() if f" {name} " in line]
        assert said == [f"--> {name} {turn}" for turn in range(10)]
    assert len(below.splitlines()) == 100
