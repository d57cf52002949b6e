"""Atomic replacement, JSON Lines that survive a kill at any byte, locks."""

from __future__ import annotations

import errno
import json
import math
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tdmpc_lab import files
from tdmpc_lab.errors import RecordError
from tdmpc_lab.files import JsonlWriter, append_jsonl, file_lock, read_jsonl, tail_jsonl, write_atomic

quick = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_write_atomic_replaces_and_keeps_bytes(tmp_path: Path) -> None:
    path = tmp_path / "note.md"
    write_atomic(path, "one\r\nzwei ü")
    assert path.read_bytes() == "one\r\nzwei ü".encode()
    write_atomic(str(path), b"\xff\x00")
    assert path.read_bytes() == b"\xff\x00"
    write_atomic(path, "")
    assert path.read_bytes() == b""
    assert [file.name for file in tmp_path.iterdir()] == ["note.md"]


def test_write_atomic_mode(tmp_path: Path) -> None:
    path = tmp_path / "f"
    umask = os.umask(0o027)
    try:
        write_atomic(path, "x")
    finally:
        os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o640  # as any new file under this umask
    path.chmod(0o664)
    write_atomic(path, "y")
    assert path.stat().st_mode & 0o777 == 0o664  # the old file's
    write_atomic(path, "z", mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600


def test_write_atomic_keeps_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_atomic(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


@pytest.mark.parametrize("call", ["fsync", "write", "replace"])
def test_write_atomic_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "f"
    path.write_text("old")

    def fail(*_args: object, **_kwargs: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(Path if call == "replace" else os, call, fail)
    with pytest.raises(OSError, match="no space"):
        write_atomic(path, "new")
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir()] == ["f"]
    assert path.read_text() == "old"


def test_write_atomic_needs_the_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "no" / "f", "x")


def test_lock_excludes_and_is_released(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    with file_lock(path), pytest.raises(BlockingIOError), file_lock(path, blocking=False):
        pass
    with pytest.raises(RuntimeError, match="boom"), file_lock(path, blocking=False):
        raise RuntimeError("boom")
    with file_lock(path, blocking=False):
        pass


def test_lock_serialises_threads(tmp_path: Path) -> None:
    counter = tmp_path / "n"
    counter.write_text("0")

    def count() -> None:
        for _ in range(20):
            with file_lock(tmp_path / "lock"):
                counter.write_text(str(int(counter.read_text()) + 1))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert counter.read_text() == "80"


def test_rows_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    rows = [
        {"step": 1, "loss": math.inf, "low": -math.inf, "in": [{"x": math.inf}], "t": (1, 2)},
        {"text": "zeile\nzwei ü\u2028 \ud800", "none": None, "flag": True, "d": {"e": {}}},
        {"numpy": np.float32(0.5), "count": np.int64(3), "array": np.array([2.0])},
    ]
    with JsonlWriter(path) as writer:
        for row in rows:
            writer.append(row)
        assert writer.offset == path.stat().st_size
    read, end = read_jsonl(path)
    assert read[0] == {**rows[0], "t": [1, 2]}
    assert read[1] == rows[1]
    assert read[2] == {"numpy": 0.5, "count": 3, "array": 2.0}
    assert end == path.stat().st_size
    assert path.read_bytes().count(b"\n") == 3


def test_rows_are_read_a_piece_at_a_time_however_long_a_line_is(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"n": n, "text": "x" * (10 if n % 3 else 300)} for n in range(20)]
    for row in rows:
        append_jsonl(path, row)
    with path.open("a") as file:
        file.write('{"torn": "' + "x" * 500)
    found, start = [], 0
    while True:
        piece, end = read_jsonl(path, start, 64)
        if end == start:
            break
        assert 0 < len(piece) < 5
        found, start = found + piece, end
    assert found == rows


def test_non_finite_rows_are_valid_json(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    append_jsonl(path, {"a": math.nan, "b": math.inf, "c": -math.inf})
    strict = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert strict == {"a": "NaN", "b": "Infinity", "c": "-Infinity"}
    ((row,), _) = read_jsonl(path)
    assert math.isnan(row["a"])
    assert row["b"] == math.inf


def test_a_value_that_is_no_json_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    with JsonlWriter(path) as writer:
        writer.append({"a": 1})
        with pytest.raises(TypeError):
            writer.append({"a": object()})
        writer.append({"a": 2})
    assert read_jsonl(path)[0] == [{"a": 1}, {"a": 2}]


def test_a_failed_write_leaves_whole_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.jsonl"
    real = os.write
    calls = iter([3])  # the first call writes 3 bytes, the next one finds the disk full

    def short(fd: int, data: memoryview) -> int:
        try:
            return real(fd, data[: next(calls)])
        except StopIteration:
            raise OSError(errno.ENOSPC, "no space") from None

    with JsonlWriter(path) as writer:
        writer.append({"a": 1})
        monkeypatch.setattr(files.os, "write", short)
        with pytest.raises(OSError, match="no space"):
            writer.append({"a": 2})
        monkeypatch.undo()
        writer.append({"a": 3})
    assert read_jsonl(path)[0] == [{"a": 1}, {"a": 3}]


def test_truncate_to(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    with JsonlWriter(path) as writer:
        writer.append({"step": 1})
        after_first = writer.offset
        writer.append({"step": 2})
        for wrong in (1, -1, writer.offset + 1):
            with pytest.raises(ValueError, match="not the beginning of a row"):
                writer.truncate_to(wrong)
        writer.truncate_to(after_first)
        writer.append({"step": 3})
        assert read_jsonl(path)[0] == [{"step": 1}, {"step": 3}]
        writer.truncate_to(0)
        assert path.read_bytes() == b""


def test_a_closed_writer_refuses(tmp_path: Path) -> None:
    writer = JsonlWriter(tmp_path / "m.jsonl")
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.append({})
    with pytest.raises(FileNotFoundError):
        JsonlWriter(tmp_path / "no" / "m.jsonl")


def test_opening_fails_without_leaking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(files, "_after_last_newline", lambda fd, size: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        JsonlWriter(tmp_path / "m.jsonl")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_opening_gives_a_whole_last_row_its_newline(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"a":1}\n{"a":2}')
    append_jsonl(path, {"a": 3})
    assert path.read_bytes() == b'{"a":1}\n{"a":2}\n{"a":3}\n'


@pytest.mark.parametrize("torn", [b'{"a', b"5", b"\xff\xfe", b"\0" * 9, b"x" * 200_000, b"[" * 100_000])
def test_opening_cuts_a_torn_row_off(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"a":1}\n' + torn)
    assert read_jsonl(path) == ([{"a": 1}], 8)
    append_jsonl(path, {"a": 3})
    assert path.read_bytes() == b'{"a":1}\n{"a":3}\n'


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
).filter(lambda value: not isinstance(value, str) or value not in ("NaN", "Infinity", "-Infinity"))
json_rows = st.lists(st.dictionaries(st.text(max_size=5), json_values, max_size=4), max_size=4)


@quick
@given(rows=json_rows, data=st.data())
def test_torn_at_any_byte(tmp_path: Path, rows: list[dict], data: st.DataObject) -> None:
    path = tmp_path / "m.jsonl"
    path.unlink(missing_ok=True)
    ends = [0]
    with JsonlWriter(path) as writer:
        for row in rows:
            writer.append(row)
            ends.append(writer.offset)
    cut = data.draw(st.integers(0, ends[-1]))
    os.truncate(path, cut)
    whole = sum(end <= cut for end in ends) - 1

    assert read_jsonl(path) == (rows[:whole], ends[whole])
    tail = tail_jsonl(path, 10)
    assert tail == rows[whole - len(tail) : whole]
    assert bool(tail) == bool(whole)
    append_jsonl(path, {"after": 1})
    read = read_jsonl(path)[0]
    # A row that lost its newline only is kept.
    kept = whole + (cut in [end - 1 for end in ends[1:]])
    assert read == [*rows[:kept], {"after": 1}]


def test_reading_goes_on_at_the_offset(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    assert read_jsonl(path, 7) == ([], 7)
    append_jsonl(path, {"a": 1})
    rows, offset = read_jsonl(path)
    with path.open("ab") as file:
        file.write(b'{"a": 2}\n\n  \n{"a":')
    rows, offset = read_jsonl(path, offset)
    assert rows == [{"a": 2}]
    with path.open("ab") as file:
        file.write(b" 3}\n")
    assert read_jsonl(path, offset) == ([{"a": 3}], path.stat().st_size)


def test_reading_a_file_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"a":1}\n{"b')
    assert read_jsonl(path, 100) == ([], 8)
    path.write_bytes(b"")
    assert read_jsonl(path, 100) == ([], 0)


@pytest.mark.parametrize("broken", ["oops", "[1]", '{"a": ', '{"a": 1} x', "\0\0"])
def test_a_broken_line_is_named(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(f'{{"a":1}}\n\n{broken}\n{{"a":2}}\n')
    with pytest.raises(RecordError, match=r"m\.jsonl:3: not a whole JSON object"):
        read_jsonl(path)
    with pytest.raises(RecordError, match=r"m\.jsonl:3: "):
        read_jsonl(path, 8)
    with pytest.raises(RecordError, match=r"m\.jsonl:3: "):
        tail_jsonl(path, len(broken) + 9)


def test_tail_reads_the_end_only(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    assert tail_jsonl(path) == []
    path.write_bytes(b"")
    assert tail_jsonl(path) == []
    rows = [{"step": step} for step in range(1000)]
    path.write_text("oops\n" + "".join(json.dumps(row) + "\n" for row in rows))
    assert tail_jsonl(path, 100) == rows[-7:]
    assert tail_jsonl(path, 14) == rows[-1:]  # '{"step": 999}\n' fits exactly
    assert tail_jsonl(path, 13) == rows[-1:]  # nothing whole within 13 bytes, so more is read
    assert tail_jsonl(path, 0) == rows[-1:]
    with path.open("ab") as file:
        file.write(b'{"step')
    assert tail_jsonl(path, 50) == rows[-3:]


def test_tail_of_one_long_row(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    append_jsonl(path, {"traceback": "x" * 5000})
    assert tail_jsonl(path, 100) == [{"traceback": "x" * 5000}]
