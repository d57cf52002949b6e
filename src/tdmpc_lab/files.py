"""Files that other processes read while they are written: atomic replacement, JSON Lines, locks.

Standard library only. Strict YAML stands in `tdmpc_lab.yaml_strict`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from tdmpc_lab.errors import RecordError

Guard = Callable[[], AbstractContextManager[object]]
"""Entered around every change of a file; what it raises leaves the file as it is."""

_BLOCK = 65536
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def write_atomic(
    path: Path | str,
    data: str | bytes | memoryview,
    *,
    mode: int | None = None,
    guard: Guard = nullcontext,
) -> None:
    """Replace the file's whole content so that a reader sees the old or the new one, never a mixture.

    Text is written as UTF-8, line ends as they are. `mode` are the permission bits; by default those of the
    file replaced, or what the umask gives. A symbolic link stays one: its target is replaced. `guard()` is
    entered around the replacement alone, which is quick even where writing the data is not.
    Raises OSError and what `guard` raises, and then leaves neither a temporary file nor a changed `path`.
    """
    content = data.encode() if isinstance(data, str) else data
    target = Path(os.path.realpath(path))
    if mode is None:
        with contextlib.suppress(FileNotFoundError):
            mode = target.stat().st_mode & 0o7777
    # Not tempfile: it creates with 0600, and the umask can't be asked for without changing it.
    temp = target.with_name(f".{target.name[:200]}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            _write_all(fd, content)
            if mode is not None:
                os.fchmod(fd, mode)
            os.fsync(fd)
        finally:
            os.close(fd)
        with guard():
            temp.replace(target)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    _fsync_folder(target.parent)


def read_whole(path: Path | str) -> bytes:
    """The file's content, by as few system calls as it takes: thousands are read for one table. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(fd, _BLOCK)
        if len(data) < _BLOCK:
            return data
        parts = [data]
        while data := os.read(fd, _BLOCK):
            parts.append(data)
        return b"".join(parts)
    finally:
        os.close(fd)


def _write_all(fd: int, content: bytes | memoryview) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(fd, left) :]


def _fsync_folder(folder: Path) -> None:
    """Make a rename last through a power cut. Some network file systems refuse; the rename still holds."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def file_lock(path: Path | str, *, blocking: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on `path` (created with its folders, and left there: deleting would race).

    Threads of one process exclude each other too. With `blocking=False` a lock held elsewhere raises
    BlockingIOError at once.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
        yield
    finally:
        os.close(fd)  # releases the lock


class JsonlWriter:
    """Appends rows to a JSON Lines file, one write() per line. One writer per file at a time.

    Opening repairs what a killed writer left: a last line without its newline gets it when it is a whole
    row, and is cut off otherwise. Folders are not created.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._fd: int | None = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            self._offset = self._repair(self._fd)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _repair(fd: int) -> int:
        size = os.fstat(fd).st_size
        whole = _after_last_newline(fd, size)
        if whole == size:
            return size
        try:
            _decode(os.pread(fd, size - whole, whole))
        except ValueError:
            os.ftruncate(fd, whole)
            return whole
        _write_all(fd, b"\n")
        return size + 1

    @property
    def offset(self) -> int:
        """Bytes in the file: where the next row will begin."""
        return self._offset

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row; it is in the operating system's hands when this returns.

        Non-finite floats become the strings "NaN", "Infinity" and "-Infinity", single-number arrays and
        tensors become numbers. Raises TypeError for a value that JSON can't hold and OSError when writing
        fails; the file then holds the rows before this one.
        """
        line = _encode(row)
        fd = self._open_fd()
        try:
            _write_all(fd, line)
        except BaseException:
            os.ftruncate(fd, self._offset)  # half a line must not be followed by the next row
            raise
        self._offset += len(line)

    def truncate_to(self, offset: int) -> None:
        """Drop every row from byte `offset` on; `offset` is the beginning of a row or the end of the file.

        Raises ValueError for any other offset.
        """
        fd = self._open_fd()
        if not 0 <= offset <= self._offset or (offset and os.pread(fd, 1, offset - 1) != b"\n"):
            raise ValueError(f"{self.path}: byte {offset} is not the beginning of a row")
        os.ftruncate(fd, offset)
        self._offset = offset

    def sync(self) -> None:
        """Have the rows written so far survive a power cut. May be called by another thread than the writer's."""
        os.fsync(self._open_fd())

    def close(self) -> None:
        """Close the file; may be called again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open_fd(self) -> int:
        if self._fd is None:
            raise ValueError(f"{self.path}: this writer is closed")
        return self._fd

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def append_jsonl(path: Path | str, row: Mapping[str, Any]) -> None:
    """Append one row to a file that is otherwise closed. See `JsonlWriter`."""
    with JsonlWriter(path) as writer:
        writer.append(row)


def read_jsonl(path: Path | str, start: int = 0, max_bytes: int | None = None) -> tuple[list[dict[str, Any]], int]:
    """The rows from byte `start` on, and the byte after the last whole line: the next call's `start`.

    `max_bytes` bounds what is read at once (more where no row fits into them); by default all is read.

    A last line without its newline is still being written, or torn: it is left for later. A missing file
    gives no rows and `start` back; a file that has become shorter than `start` (rows were dropped for a
    resume) gives no rows and its own end. Blank lines are skipped.
    Raises RecordError with file and line for a whole line that is no JSON object.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if start > size:
                return [], _after_last_newline(file.fileno(), size)
            file.seek(start)
            data = file.read() if max_bytes is None else _read_some(file, max_bytes)
    except FileNotFoundError:
        return [], start
    whole = data[: data.rfind(b"\n") + 1]
    return _decode_lines(path, whole, start), start + len(whole)


def _read_some(file: BinaryIO, max_bytes: int) -> bytes:
    """The next `max_bytes` bytes, and as many more as it takes to have a whole line."""
    data = file.read(max_bytes)
    while b"\n" not in data and (more := file.read(max_bytes)):
        data += more
    return data


def decode_jsonl(path: Path | str, data: bytes) -> list[dict[str, Any]]:
    """The rows in `data`, whole lines from the beginning of the file. Raises RecordError like `read_jsonl`."""
    return _decode_lines(path, data, 0)


def tail_jsonl(path: Path | str, max_bytes: int = 65536) -> list[dict[str, Any]]:
    """The last whole rows, in order, reading the last `max_bytes` only (more where no row fits into them).

    A missing file gives no rows. Raises RecordError like `read_jsonl`.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    try:
        size = os.fstat(fd).st_size
        window = max(1, max_bytes)
        while True:
            start = max(0, size - window)
            # One byte more to the left tells whether the window begins with a whole line.
            before = max(0, start - 1)
            data = os.pread(fd, size - before, before)
            first = start
            if start > 0:
                cut = data.find(b"\n") + 1
                first, data = (before + cut, data[cut:]) if cut else (size, b"")
            whole = data[: data.rfind(b"\n") + 1]
            if start == 0 or whole.strip():
                return _decode_lines(path, whole, first)
            window *= 2
    finally:
        os.close(fd)


def tail_lines(path: Path | str, max_bytes: int) -> tuple[bytes, bool]:
    """The whole lines among the last `max_bytes`, and whether the file begins with them; nothing for a missing file.

    Raises OSError.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b"", True
    try:
        size = os.fstat(fd).st_size
        start = max(0, size - max_bytes)
        data = os.pread(fd, size - start, start)
    finally:
        os.close(fd)
    first = data.find(b"\n") + 1 if start else 0
    return data[first : data.rfind(b"\n") + 1], start == 0


def _after_last_newline(fd: int, size: int) -> int:
    """Byte after the last newline among the first `size`, 0 without one; reads backwards."""
    end = size
    while end > 0:
        begin = max(0, end - _BLOCK)
        found = os.pread(fd, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def _decode_lines(path: Path | str, data: bytes, start: int) -> list[dict[str, Any]]:
    rows = _decode_at_once(data)
    if rows is not None:
        return rows
    rows = []
    for index, line in enumerate(data.split(b"\n")):
        if not line.strip():
            continue
        try:
            rows.append(_decode(line))
        except ValueError as error:
            number = index + 1 + _newlines_before(path, start)
            raise RecordError(
                f"{path}:{number}: not a whole JSON object ({error}): {line[:80]!r}. "
                "The file was changed by something else than this tool; mend or delete this line."
            ) from error
    return rows


def _decode_at_once(data: bytes) -> list[dict[str, Any]] | None:
    """The rows by one call of the parser, four times as fast; None where each has to be looked at by itself."""
    lines = [line for line in data.split(b"\n") if line.strip()]
    if b'"NaN"' in data or b'Infinity"' in data:
        return None
    try:
        rows = json.loads(b"[" + b",".join(lines) + b"]")
    except (ValueError, RecursionError):
        return None
    whole = len(rows) == len(lines) and all(isinstance(row, dict) for row in rows)
    return rows if whole else None


def _newlines_before(path: Path | str, offset: int) -> int:
    """Lines before byte `offset`; for error messages only, so the cost does not matter."""
    with Path(path).open("rb") as file:
        return file.read(offset).count(b"\n")


def _encode(row: Mapping[str, Any]) -> bytes:
    text = json.dumps(_plain(dict(row)), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Lone surrogates (from undecodable file names) have no UTF-8 form; as \ud8xx escapes they are kept.
    return text.encode(errors="backslashreplace") + b"\n"


def _decode(line: bytes) -> dict[str, Any]:
    """One row. Raises ValueError for anything but a JSON object in UTF-8."""
    try:
        row = json.loads(line.decode())
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(row, dict):
        raise ValueError(f"a {type(row).__name__} instead of an object")
    return {key: _restore(value) for key, value in row.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and getattr(value, "size", None) is not None:  # numpy scalar, torch tensor
        return _plain(value.item())
    return value


def _restore(value: Any) -> Any:
    if isinstance(value, str):
        return _NON_FINITE.get(value, value)
    if isinstance(value, dict):
        return {key: _restore(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_restore(item) for item in value]
    return value


def nearest(path: Path) -> Path:
    """The path, or what exists of it."""
    return next(p for p in (path, *path.parents) if p.exists())
