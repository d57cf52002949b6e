"""Checkpoints in a folder: written atomically, the last two kept, a torn one passed over."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tdmpc_lab.errors import CheckpointError
from tdmpc_lab.files import Guard, write_atomic

FORMAT = 1
_NAME = re.compile(r"step_(\d+)\.pt")


class CheckpointStore:
    """Checkpoints `step_<N>.pt` of one job.

    Args:
        folder: made when the first checkpoint is written.
        keep: how many of the newest stay.
        guard: entered around every change of the folder; what it raises leaves the folder as it is.
    """

    def __init__(self, folder: Path, *, keep: int = 2, guard: Guard = nullcontext) -> None:
        self.folder = folder
        self.keep = keep
        self._guard = guard
        self.made_of: Mapping[str, Any] = {}
        """Goes into every checkpoint, so that an agent can be built from it; see `load.header`."""
        self.skipped: list[str] = []  # what `load_latest` passed over, in words

    def paths(self) -> list[Path]:
        """The checkpoints there, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted((p for p in self.folder.iterdir() if _NAME.fullmatch(p.name)), key=step_of)

    def latest_name(self) -> str:
        """The newest checkpoint's name for a message, or `none yet`."""
        paths = self.paths()
        return paths[-1].name if paths else "none yet"

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write the state reached at environment step `step`; older ones beyond `keep` are removed after."""
        path = self.folder / f"step_{step:09d}.pt"
        with self._guard():
            self.folder.mkdir(parents=True, exist_ok=True)
        save_checkpoint(path, {"step": step, **self.made_of, **state}, self._guard)
        with self._guard():
            for old in self.paths()[: -self.keep]:
                old.unlink(missing_ok=True)
        return path

    def sweep(self) -> None:
        """Remove what a process that was killed while it saved left behind. Not while another one saves."""
        with self._guard():
            for temp in self.folder.glob(".step_*.pt.*.tmp"):
                temp.unlink(missing_ok=True)

    def load_latest(self) -> dict[str, Any] | None:
        """The newest checkpoint that can be read, or None when there is none at all.

        Unreadable ones are passed over and named in `skipped`.

        Raises:
            CheckpointError: there are checkpoints, and none of them can be read.
        """
        paths = self.paths()
        for path in reversed(paths):
            try:
                return load_checkpoint(path)
            except CheckpointError as error:
                self.skipped.append(str(error))
        if paths:
            raise CheckpointError("no checkpoint can be read:\n  " + "\n  ".join(self.skipped))
        return None


def save_checkpoint(path: Path, state: Mapping[str, Any], guard: Guard = nullcontext) -> None:
    """Write one checkpoint, whole or not at all; `guard()` is entered around its replacement of an older one.

    Raises OSError, and what `guard` raises.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue(), guard=guard)


def step_of(path: Path) -> int:
    """The environment step in a checkpoint's file name; -1 for other names."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else -1


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read one checkpoint onto the CPU, executing no code from it.

    Raises:
        CheckpointError: missing, torn, not a checkpoint, or of another format.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except Exception as error:  # torch raises many types for a torn or foreign file
        raise CheckpointError(f"{path}: can't be read as a checkpoint ({type(error).__name__}: {error})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(f"{path}: format {found!r}; this version reads format {FORMAT}")
    return state


def arrays_to_tensors(tree: Any) -> Any:
    """Nested dicts and lists with every numpy array made a tensor: what can be loaded without running code."""
    if isinstance(tree, dict):
        return {key: arrays_to_tensors(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [arrays_to_tensors(value) for value in tree]
    return torch.from_numpy(tree) if isinstance(tree, np.ndarray) else tree


def tensors_to_arrays(tree: Any) -> Any:
    """The inverse of `arrays_to_tensors`."""
    if isinstance(tree, dict):
        return {key: tensors_to_arrays(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [tensors_to_arrays(value) for value in tree]
    return tree.numpy() if isinstance(tree, torch.Tensor) else tree
