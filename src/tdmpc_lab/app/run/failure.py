"""What a job says when it fails: the cause in one line, where it was raised, and the disk space it kept for that."""

from __future__ import annotations

import contextlib
import errno
import os
import sysconfig
import traceback
from pathlib import Path
from typing import TextIO

from tdmpc_lab.errors import LabError, RecordError
from tdmpc_lab.jobs.paths import JobPaths
from tdmpc_lab.jobs.state import Why
from tdmpc_lab.text import shorten

RESERVE_BYTES = 256 * 1024
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_WIDTH, _FRAME_WIDTH = 300, 90
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")  # torch raises a RuntimeError


def keep_reserve(paths: JobPaths) -> None:
    """Occupy some space, to be freed for the outcome should the disk be full then."""
    with contextlib.suppress(OSError):  # it is full already: then the job will say so
        paths.reserve.write_bytes(os.urandom(RESERVE_BYTES))


def free_reserve(paths: JobPaths) -> None:
    """Give that space back: the outcome is on file, or needs it now."""
    with contextlib.suppress(OSError):  # what stays is found by gc
        paths.reserve.unlink(missing_ok=True)


def disk_is_full(error: BaseException | None) -> bool:
    """Whether this error, or one behind it, says that no more can be written."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


def why_of(error: BaseException) -> Why | None:
    """Of which kind the cause is; None for those about which nothing general can be said."""
    if disk_is_full(error):
        return Why.DISK
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not loaded here
        return Why.GPU_MEMORY
    return Why.HOST_MEMORY if _memory_is_out(error) else None


def cause_of(error: BaseException) -> str:
    """Why a job failed, in one line: our own errors speak for themselves, others with their type and last frame.

    An environment's own exception hides behind ours; its type and words are in ours already.
    """
    text = str(error).strip() or "no message"
    if disk_is_full(error):
        return "the disk is full, or the quota used up: make room, then continue with tdmpc-lab resume; " + shorten(
            f"{type(error).__name__}: {error}", 150
        )
    if _memory_is_out(error):
        return (
            "out of memory: ask for more (slurm.memory, or a larger GPU), or lower train.batch_size or "
            "train.replay_capacity, then continue with tdmpc-lab resume; "
            + shorten(f"{type(error).__name__}: {text}", 120)
        )
    told = text if isinstance(error, LabError) else f"{type(error).__name__}: {text}"
    if not (frame := last_frame(error)):
        return shorten(told, _WIDTH)
    return f"{shorten(told, _WIDTH - _FRAME_WIDTH - len(', at '))}, at {shorten(frame, _FRAME_WIDTH)}"


def _memory_is_out(error: BaseException) -> bool:
    told = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and not isinstance(error, LabError)
        and any(words in told for words in _OUT_OF_MEMORY)
    )


def cannot_begin(paths: JobPaths, error: OSError) -> RecordError:
    """For a job that can't write into its folder, and so can't even say so there."""
    return RecordError(
        f"{paths.folder}: nothing can be written there ({error.strerror or error}); the job was not begun. See to the "
        "folder's permissions and its disk, then start it again"
    )


def let_go_of(stream: TextIO) -> None:
    """Flush a stream that may take nothing any more, so that the process can end as it should."""
    try:
        stream.flush()
    except (
        OSError
    ):  # what is still held back goes nowhere: else the interpreter's own flush fails, and with it the exit code
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


_OTHERS = (*(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")), "<frozen ")


def last_frame(error: BaseException) -> str:
    """`moody_env.py:26 in step`: where an error that is not ours was raised, by the last frame that is no library's.

    Empty for an error of this package, which names the fault itself, and for one without a frame.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, LabError) or not frames:
        return ""
    own = [frame for frame in frames if not frame.filename.startswith(_OTHERS)]
    frame = (own or frames)[-1]
    return f"{_shown(Path(frame.filename))}:{frame.lineno} in {frame.name}"


def _shown(path: Path) -> str:
    """The path as the job sees it: from its working folder, which is that of its code."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else "/".join(path.parts[-2:])
