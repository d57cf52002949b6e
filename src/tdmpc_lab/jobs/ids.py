"""Job ids: `1971498` and `1971498_3` (SLURM, array task), `local-20260203-091422-123` (this machine)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

ID_HELP = "an id looks like 1971498, 1971498_3 (array task) or local-20260203-091422-123"

_SLURM = re.compile(r"[1-9][0-9]{0,18}(_[0-9]{1,9})?")
_LOCAL = re.compile(r"local-[0-9]{8}-[0-9]{6}-[0-9]{3}")
_TASKS = re.compile(r"(\d+)_\[([\d,\-]+)(?:%\d+)?\]", re.ASCII)
_MOST_TASKS = 100_000  # of one text from squeue: more is no array but a slip


def is_slurm_id(text: str) -> bool:
    """Whether this is the id of one SLURM job or array task; `123_[1,3%2]` (a pending array) is not."""
    return _SLURM.fullmatch(text) is not None


def is_local_id(text: str) -> bool:
    """Whether this is the id of a job of this machine."""
    return _LOCAL.fullmatch(text) is not None


def is_job_id(text: str) -> bool:
    """Whether this can be the name of a job folder."""
    return is_slurm_id(text) or is_local_id(text)


def array_of(job_id: str) -> tuple[str, int] | None:
    """The array and the number of an array task; None for a job that is none."""
    array, _, task = job_id.partition("_")
    return (array, int(task)) if task and is_slurm_id(job_id) else None


def expand_tasks(text: str) -> list[str]:
    """`7` and `7_3` as they are, `7_[0-2,5%2]` (tasks that wait) as its tasks; nothing for anything else."""
    if is_slurm_id(text):
        return [text]
    match = _TASKS.fullmatch(text)
    if match is None:
        return []
    tasks: list[str] = []
    for part in match[2].split(","):
        low, _, high = part.partition("-")
        if not low.isdecimal() or not (high or low).isdecimal() or int(high or low) - int(low) > _MOST_TASKS:
            continue
        tasks += [f"{match[1]}_{task}" for task in range(int(low), int(high or low) + 1)]
    return tasks


def fold_tasks(array_id: str, tasks: Iterable[int]) -> str:
    """Tasks of one array on one line, as squeue writes those that wait: `7_[0-2,5]`; the inverse of `expand_tasks`."""
    runs: list[list[int]] = []
    for task in sorted(set(tasks)):
        if runs and task == runs[-1][1] + 1:
            runs[-1][1] = task
        else:
            runs.append([task, task])
    return f"{array_id}_[{','.join(str(a) if a == b else f'{a}-{b}' for a, b in runs)}]"


def new_local_id(now: datetime) -> str:
    """`local-YYYYMMDD-HHMMSS-mmm`, the moment as `now` states it: local time reads best.

    Sorts by time and can't be a SLURM id. Two jobs of one millisecond get the same one:
    `allocate_local_folder` is what makes ids unique.
    """
    return f"local-{now:%Y%m%d-%H%M%S}-{now.microsecond // 1000:03d}"


def natural_key(job_id: str) -> tuple[int, ...]:
    """Sort key that puts task 9 before task 10."""
    return tuple(int(digits) for digits in re.findall("[0-9]+", job_id))
