"""The replay's episodes in files of their own beside the checkpoints: each is written once.

A checkpoint names the files that hold its episodes, with their checksums; files that no checkpoint names any more
are removed. So a checkpoint writes the episodes that came since the one before, however large the replay is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tdmpc_lab.agent import Replay
from tdmpc_lab.errors import CheckpointError
from tdmpc_lab.training.sealed import Sealed, read_sealed

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
