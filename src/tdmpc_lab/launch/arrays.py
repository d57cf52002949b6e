"""Job arrays: how large one may be, and how a sweep that is larger is cut."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from typing import TypeVar

from tdmpc_lab.launch.commands import command

T = TypeVar("T")
DEFAULT_MAX_ARRAY_SIZE = 1001


def max_array_size() -> int:
    """How many tasks an array of this cluster may have; SLURM's default where it does not say.

    MaxArraySize is one more than the highest task number, and arrays begin at 0. Raises ExternalError when
    SLURM does not answer.
    """
    match = re.search(r"^MaxArraySize\s*=\s*([0-9]+)", command(["scontrol", "show", "config"]), re.MULTILINE)
    return max(1, int(match[1])) if match else DEFAULT_MAX_ARRAY_SIZE


def even_chunks(items: Sequence[T], most: int) -> list[list[T]]:
    """The items in order, in as few parts as hold at most `most` each, of nearly one size."""
    parts = math.ceil(len(items) / most)
    bounds = [len(items) * part // parts for part in range(parts + 1)]
    return [list(items[start:end]) for start, end in itertools.pairwise(bounds)]


def task_ids(array_id: str, count: int) -> list[str]:
    """The job ids of the tasks; an array of one is no array."""
    return [array_id] if count == 1 else [f"{array_id}_{task}" for task in range(count)]
