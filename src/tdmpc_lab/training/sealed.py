"""Files of tensors that carry their own checksum, read without executing any code from them.

A file is what `torch.save` writes, a zip archive, whose comment is the SHA-256 of everything before it. So plain
`torch.load` reads it too.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tdmpc_lab.errors import CheckpointError

_MARK = b"tdmpc-lab sha256 "
_SEAL_BYTES = len(_MARK) + 64
_NO_COMMENT = b"\0\0"  # the length of the comment, which ends a zip archive without one


@dataclass(frozen=True)
class Sealed:
    """The bytes of a file, and the checksum in them."""

    data: memoryview
    digest: str


def seal(state: Mapping[str, Any]) -> Sealed:
    """The file's content for a state of tensors, numbers, texts, and dicts and lists of them."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    view = buffer.getbuffer()
    if bytes(view[-2:]) != _NO_COMMENT:
        raise ValueError("torch.save wrote something else than a zip archive without a comment")
    view[-2:] = _SEAL_BYTES.to_bytes(2, "little")
    digest = hashlib.sha256(view).hexdigest()
    view.release()
    buffer.seek(0, io.SEEK_END)
    buffer.write(_MARK + digest.encode())
    return Sealed(buffer.getbuffer(), digest)


def read_sealed(path: Path, digest: str | None = None) -> tuple[Any, bool]:
    """What a file holds, on the CPU, and whether it has a checksum: the first format had none.

    `digest` is the checksum it must have, where that is known.

    Raises:
        CheckpointError: missing, torn, changed since it was written, or no such file.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {error.strerror}") from error
    found = _digest_in(data)
    if found is not None:
        _compare(path, hashlib.sha256(memoryview(data)[:-_SEAL_BYTES]).hexdigest(), found)
    if digest is not None:
        _compare(path, found, digest)
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), found is not None
    except Exception as error:  # torch raises many types for a torn or foreign file
        raise CheckpointError(f"{path}: can't be read as a checkpoint ({type(error).__name__}: {error})") from error


def _digest_in(data: bytes) -> str | None:
    end = data[-_SEAL_BYTES:]
    return end[len(_MARK) :].decode(errors="replace") if end.startswith(_MARK) else None


def _compare(path: Path, found: str | None, expected: str) -> None:
    if found != expected:
        had = "none" if found is None else f"{found[:12]}…"
        raise CheckpointError(
            f"{path}: damaged: its checksum is {had} and should be {expected[:12]}…; it was torn or changed after it "
            "was written"
        )
