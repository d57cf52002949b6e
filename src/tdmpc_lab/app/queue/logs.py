"""`logs`: what a job's process printed, and what it prints on, to the job's end."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from tdmpc_lab.app.queue.status import ASK_S, POLL_S, Asked, JobView, goes_on, job_views
from tdmpc_lab.jobs.paths import JobPaths, Project

_BLOCK = 1 << 16  # bytes read at once, from the end backwards
_LOOK_S = 2.0  # between two looks at the job's state


class Tail:
    """The end of a file, and then what is added to it; also where another file takes its place.

    A later attempt may write into the same file, into it from its beginning, or into another one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def last(self, lines: int) -> bytes:
        """The last `lines` lines, also an unfinished one; nothing where there is no file. Raises OSError."""
        file = self._open()
        if file is None:
            return b""
        end = begin = file.seek(0, os.SEEK_END)
        data = b""
        while begin > 0 and data.count(b"\n") <= lines:
            size = min(_BLOCK, begin)
            begin = file.seek(begin - size)
            data = file.read(size) + data
        file.seek(end)  # what has come meanwhile is for `more`
        kept = io.BytesIO(data).readlines()
        return b"".join(kept[max(0, len(kept) - lines) :])

    def more(self) -> bytes:
        """What has come since the last call. Raises OSError."""
        old = self._file
        data = b"" if old is None else _rest(old)
        try:
            there = self._path.stat()
        except FileNotFoundError:  # not yet, or not any more
            return data
        if old is not None:
            if os.path.samestat(os.fstat(old.fileno()), there):
                return data
            data += _rest(old)
            self.close()
        file = self._open()
        return data if file is None else data + _rest(file)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> BinaryIO | None:
        if self._file is None:
            try:
                self._file = self._path.open("rb")
            except FileNotFoundError:
                return None
        return self._file


def _rest(file: BinaryIO) -> bytes:
    if os.fstat(file.fileno()).st_size < file.tell():  # begun again
        file.seek(0)
    return file.read()


def log_of(paths: JobPaths, *, errors: bool) -> Path:
    """The file of what the job printed: on standard error, or on standard output."""
    return paths.log_err if errors else paths.log_out


def follow(
    project: Project, job_id: str, tail: Tail, write: Callable[[bytes], None], say: Callable[[str], None]
) -> JobView:
    """Hand `write` all that comes into the log until the job has ended; returns how it ended.

    `say` is told what a waiting job waits for. SLURM is asked every `ASK_S` seconds. Raises OSError.
    """
    asked, told, look_at = Asked(ASK_S), "", 0.0
    unknown_since: dict[str, float] = {}
    while True:
        view: JobView | None = None
        going = True
        if time.monotonic() >= look_at:
            look_at = time.monotonic() + _LOOK_S
            (view,) = job_views(project, [job_id], asked)
            going = goes_on(view, unknown_since)
            words = state_in_words(view)
            if going and words != told and view.status is not None and view.status.cause:
                say(words)
            told = words
        # Read after the look: what the job printed before its end is all there then.
        if data := tail.more():
            write(data)
        if view is not None and not going:
            return view
        time.sleep(POLL_S)


def state_in_words(view: JobView) -> str:
    """`7 PENDING: waits for …`."""
    if view.status is None:
        return f"{view.id} UNKNOWN: {view.problem}"
    return f"{view.id} {view.status.state.value}" + (f": {view.status.cause}" if view.status.cause else "")
