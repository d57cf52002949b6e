"""Checkpoints in a folder: written in the background, whole or not at all, the last two kept, torn ones passed over.

Also here: the replay's episodes in files of their own beside the checkpoints: each is written once.

A checkpoint names the files that hold its episodes, with their checksums; files that no checkpoint names any more
are removed. So a checkpoint writes the episodes that came since the one before, however large the replay is.

Also here: files of tensors that carry their own checksum, read without executing any code from them.

A file is what `torch.save` writes, a zip archive, whose comment is the SHA-256 of everything before it. So plain
`torch.load` reads it too.
"""

from __future__ import annotations

import hashlib
import io
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tdmpc_lab.agent import Replay
from tdmpc_lab.errors import CheckpointError
from tdmpc_lab.files import Guard, write_atomic
from tdmpc_lab.sharing import make_folder

FORMAT = 2
_FOREIGN = (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError)
_NAME = re.compile(r"step_(\d+)\.pt")


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was written whole."""

    step: int
    path: Path
    held_s: float
    """Seconds the caller was held for the copy, and for an earlier write that was not done."""
    write_s: float
    """Seconds it then took to write, in the background."""
    size: int
    """Bytes written."""


class _Write(threading.Thread):
    """One checkpoint on its way to the disk."""

    def __init__(self, write: Callable[[], Saved]) -> None:
        super().__init__(name="checkpoint", daemon=True)
        self._write = write
        self.saved: Saved | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.saved = self._write()
        except BaseException as error:  # noqa: BLE001 - handed on to the thread that waits for it
            self.error = error


class CheckpointStore:
    """Checkpoints `step_<N>.pt` of one job, and the replay's episodes in files beside them.

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
        self._passed_over: list[Path] = []
        self._write: _Write | None = None
        self._replay: Replay | None = None  # whose episodes `_files` hold; None: of the one loaded next
        self._files: tuple[EpisodeFile, ...] = ()
        self._named: dict[Path, frozenset[str]] = {}  # files of episodes by checkpoint, as far as known

    def paths(self) -> list[Path]:
        """The checkpoints there, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted((p for p in self.folder.iterdir() if _NAME.fullmatch(p.name)), key=step_of)

    def latest_name(self) -> str:
        """The newest checkpoint's name for a message, or `none yet`; a running write is waited for."""
        if self._write is not None:
            self._write.join()
        paths = self.paths()
        return paths[-1].name if paths else "none yet"

    def begin(
        self,
        step: int,
        state: Mapping[str, Any],
        replay: Replay | None = None,
        *,
        first: Callable[[], None] = lambda: None,
    ) -> None:
        """Copy the state reached at environment step `step`, and have it written in the background.

        Of `replay` the episodes are written that no file holds yet. An earlier write is to be over: see `finish`.
        `first()` is called in the background before the checkpoint appears: what it refers to is to be on disk then.
        """
        began = time.monotonic()
        if self._write is not None:
            raise ValueError("an earlier checkpoint is still being written; call finish first")
        copy = host_copy({"format": FORMAT, "step": step, **self.made_of, **state})
        kept: list[EpisodeFile] = []
        part = None
        if replay is not None:
            if self._replay not in (None, replay):
                self._files = ()
            kept = serving(self._files, replay)
            part = replay.part(kept[-1].end if kept else replay.oldest)
            copy["replay"] = host_copy(replay.layout())
            self._replay = replay
        held = time.monotonic() - began

        def write() -> Saved:
            return self._write_all(step, copy, kept, part, held, first)

        self._write = _Write(write)
        self._write.start()

    def poll(self) -> Saved | None:
        """What has been written since the last call, if anything, without waiting. Raises as `finish`."""
        return None if self._write is None or self._write.is_alive() else self.finish()

    def finish(self) -> Saved | None:
        """Wait for the running write; what was written, None when nothing was begun.

        Raises OSError, and what the guard raises: the folder is as before, and the checkpoint is not there.
        """
        write, self._write = self._write, None
        if write is None:
            return None
        write.join()
        if write.error is not None:
            raise write.error
        return write.saved

    def settle(self) -> None:
        """Join the running write without raising; used while another error is propagating."""
        if self._write is not None:
            self._write.join()

    def save(self, step: int, state: Mapping[str, Any], replay: Replay | None = None) -> Path:
        """Write the state and wait for it. Raises as `finish`."""
        self.begin(step, state, replay)
        saved = self.finish()
        assert saved is not None
        return saved.path

    def _write_all(
        self,
        step: int,
        state: dict[str, Any],
        kept: list[EpisodeFile],
        part: dict[str, Any] | None,
        held_s: float,
        first: Callable[[], None],
    ) -> Saved:
        """In the background: the new episodes, then the checkpoint that names them, then the old ones go."""
        began, size = time.monotonic(), 0
        with self._guard():
            make_folder(self.folder, exist_ok=True)
        if part is not None and len(part["steps"]) > 0:
            sealed = seal(part)
            file = EpisodeFile.of(part, sealed)
            write_atomic(self.folder / file.name, sealed.data, guard=self._guard)
            size += len(sealed.data)
            kept.append(file)
        if part is not None:
            state["replay"]["files"] = [file.as_dict() for file in kept]
        first()
        path = self.folder / f"step_{step:09d}.pt"
        content = seal(state).data
        write_atomic(path, content, guard=self._guard)
        self._files = tuple(kept)
        self._named[path] = frozenset(file.name for file in kept)
        self._remove_old(path)
        return Saved(step, path, held_s, time.monotonic() - began, size + len(content))

    def _remove_old(self, newest: Path) -> None:
        """The checkpoints beyond `keep`, those that could not be read, and files of episodes that none names."""
        with self._guard():
            bad = [path for path in self._passed_over if path != newest]
            good = [path for path in self.paths() if path not in bad]
            for old in (*bad, *good[: -self.keep]):
                old.unlink(missing_ok=True)
            left = good[-self.keep :]
            if all(path in self._named for path in left):
                named = frozenset[str]().union(*(self._named[path] for path in left))
                for file in self.folder.glob(PATTERN):
                    if file.name not in named:
                        file.unlink(missing_ok=True)
        self._passed_over.clear()

    def sweep(self) -> None:
        """Remove what a process that was killed while it saved left behind. Not while another one saves."""
        with self._guard():
            for pattern in (".step_*.pt.*.tmp", ".episodes_*.pt.*.tmp"):
                for temp in self.folder.glob(pattern):
                    temp.unlink(missing_ok=True)

    def load_latest(self, check: Callable[[Mapping[str, Any]], None] = lambda _state: None) -> dict[str, Any] | None:
        """The newest checkpoint that can be read, with its replay, or None when there is none at all.

        Unreadable ones, and those for which `check` raises CheckpointError, are passed over and named in `skipped`.

        Raises:
            CheckpointError: there are checkpoints, and none of them can be read.
        """
        paths = self.paths()
        for path in reversed(paths):
            try:
                state = load_training(path)
                check(state)
            except CheckpointError as error:
                self.skipped.append(str(error))
                self._passed_over.append(path)
            else:
                self._files, self._replay = files_in(state), None
                self._named[path] = frozenset(file.name for file in self._files)
                return state
        if paths:
            raise CheckpointError("no checkpoint can be read:\n  " + "\n  ".join(self.skipped))
        return None


def save_checkpoint(path: Path, state: Mapping[str, Any], guard: Guard = nullcontext) -> None:
    """Write one checkpoint, whole or not at all; `guard()` is entered around its replacement of an older one.

    Raises OSError, and what `guard` raises.
    """
    make_folder(path.parent, exist_ok=True)
    write_atomic(path, seal({"format": FORMAT, **state}).data, guard=guard)


def step_of(path: Path) -> int:
    """The environment step in a checkpoint's file name; -1 for other names."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else -1


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read one checkpoint onto the CPU, executing no code from it. The replay's episodes are left where they are.

    Raises:
        CheckpointError: missing, torn, changed after it was written, not a checkpoint, or of another format.
    """
    state, has_checksum = read_sealed(path)
    found = state.get("format") if isinstance(state, dict) else type(state).__name__
    if not isinstance(state, dict) or found != FORMAT:
        raise CheckpointError(f"{path}: format {found!r}; this version reads format {FORMAT}")
    if not has_checksum:
        raise CheckpointError(f"{path}: damaged: its checksum is missing, so its end is")
    return state


def load_training(path: Path) -> dict[str, Any]:
    """The same with all that training continues from: the replay's episodes too.

    Raises:
        CheckpointError: as `load_checkpoint`, also for a file of episodes that it names.
    """
    state = load_checkpoint(path)
    if "replay" not in state:
        return state
    try:
        state["replay"]["parts"] = read_parts(path.parent, files_in(state))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: of its replay: {error}") from error
    except _FOREIGN as error:
        raise CheckpointError(f"{path}: its replay is not as it should be ({type(error).__name__}: {error})") from error
    return state


@contextmanager
def reading_state(what: str = "the checkpoint") -> Iterator[None]:
    """Within, a checkpoint's content is taken apart: what is not as expected there is a CheckpointError."""
    try:
        yield
    except _FOREIGN as error:
        raise CheckpointError(
            f"{what} does not hold what is needed ({type(error).__name__}: {error}); it was made by "
            "another version or for another config"
        ) from error


def host_copy(tree: Any) -> Any:
    """Nested dicts, lists and tuples with every tensor copied to host memory: nothing later changes it."""
    if isinstance(tree, Mapping):
        return {key: host_copy(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(host_copy(value) for value in tree)
    return tree.detach().to("cpu", copy=True) if isinstance(tree, torch.Tensor) else tree


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


PATTERN = "episodes_*.pt"
MOST_SMALL = 64
"""Beyond that many files, new episodes go into one file with the smaller ones before them."""


@dataclass(frozen=True)
class EpisodeFile:
    """A file that holds the episodes with the numbers from `first` to before `end`."""

    name: str
    first: int
    end: int
    slots: int
    """Rows in it: an episode takes one more than its steps."""
    digest: str

    @classmethod
    def of(cls, part: Mapping[str, Any], sealed: Sealed) -> EpisodeFile:
        """The file for a `Replay.part` that was sealed."""
        first, end = int(part["first"]), int(part["first"]) + len(part["steps"])
        name = f"episodes_{first:09d}-{end:09d}_{sealed.digest[:12]}.pt"
        return cls(name, first, end, len(part["rewards"]), sealed.digest)

    def as_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return asdict(self)


def serving(files: Sequence[EpisodeFile], replay: Replay) -> list[EpisodeFile]:
    """Which of the files of the checkpoint before serve the next one; the rest of the replay is to be written anew.

    Files whose episodes have all left the replay go. Where there are many, those no larger than what is new are
    written again together with it: the number of files stays small, and every episode is written a few times at most.
    """
    kept = [file for file in files if file.end > replay.oldest]
    new = replay.slots_from(kept[-1].end if kept else 0)
    while len(kept) > MOST_SMALL and kept[-1].slots <= new:
        new += kept.pop().slots
    return kept


def files_in(state: Mapping[str, Any]) -> tuple[EpisodeFile, ...]:
    """The files that a checkpoint names; none where it keeps the episodes within itself, or has no replay.

    Raises KeyError, TypeError for what is no list of files.
    """
    replay = state.get("replay")
    listed = replay.get("files", ()) if isinstance(replay, Mapping) else ()
    return tuple(
        EpisodeFile(str(f["name"]), int(f["first"]), int(f["end"]), int(f["slots"]), str(f["digest"])) for f in listed
    )


def read_parts(folder: Path, files: Iterable[EpisodeFile]) -> list[Any]:
    """The parts of a replay out of these files.

    Raises:
        CheckpointError: one is missing, torn, changed, or lies elsewhere.
    """
    parts = []
    for file in files:
        if Path(file.name).name != file.name:
            raise CheckpointError(f"{folder}: {file.name!r} is no name of a file of episodes")
        part, _ = read_sealed(folder / file.name, file.digest)
        parts.append(part)
    return parts


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
    """What a file holds, on the CPU, and whether it has a checksum.

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
