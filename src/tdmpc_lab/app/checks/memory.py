"""Whether a job's memory and files fit where they are to go."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from tdmpc_lab.app.checks.trial import Trial
from tdmpc_lab.config.loader import LoadedSpec
from tdmpc_lab.config.schema import SlurmConfig
from tdmpc_lab.errors import Finding, Level
from tdmpc_lab.files import nearest
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.launch.nodes import NodeGroup, gpu_memory_gib, gpus_asked_for, memory_mib
from tdmpc_lab.launch.options import extra_options
from tdmpc_lab.launch.sbatch import memory_asked_for

GIB = 2**30
_TIGHT = 0.85  # of the memory: from here on it is said
_KEPT_CHECKPOINTS = 3  # the last two, and the one being written
# A process with its libraries, MLflow too, in GiB: without CUDA (measured: 0.5) and with it.
_PROCESS_CPU, _PROCESS_CUDA = 0.6, 2.5
MIB_PER_GIB = 1024


def place(item: LoadedSpec, key: str) -> str:
    """Where the key was given, for a finding."""
    if key in item.unset:
        return f"{key}, which nothing sets (its default)"
    source, line = item.origin(key)
    return f"{source}{'' if line is None else f':{line}'}: {key}"


def replay_size(item: LoadedSpec, trial: Trial) -> int:
    """Bytes of the full replay."""
    from tdmpc_lab.agent.replay import replay_bytes

    train, sizes = item.spec.train, trial.sizes
    slots = min(train.replay_capacity, max(2 * train.steps, sizes.episode_length + 1))
    plans = item.spec.agent.policy_prior != "value"
    return replay_bytes(slots, sizes.observation, sizes.action, plans=plans)


def checkpoint_size(item: LoadedSpec, trial: Trial) -> int:
    """Bytes of one checkpoint with all of its replay: weights, Adam's moments, the replay."""
    return _without_replay(trial) + replay_size(item, trial)


def checkpoints_size(item: LoadedSpec, trial: Trial) -> int:
    """Bytes of all that a job keeps to continue from: the replay's episodes are there once, and some that left it."""
    return _KEPT_CHECKPOINTS * _without_replay(trial) + 2 * replay_size(item, trial)


def _without_replay(trial: Trial) -> int:
    return trial.memory.weights + trial.memory.training * 2 // 3


def gpu_findings(item: LoadedSpec, trial: Trial, groups: Sequence[NodeGroup]) -> Iterator[Finding]:
    """The training device against the GPU asked for."""
    config, train = item.spec.slurm, item.spec.train
    kind, count = gpus_asked_for(config)
    where = place(item, "slurm.gpus")
    if not count:
        if train.device.startswith("cuda"):
            yield Finding(
                level="error",
                check="gpu",
                where=place(item, "train.device"),
                what=f"found {train.device}, but the job asks for no GPU",
                why="the job would fail when it starts",
                fix='set slurm.gpus, as in "2080ti:1", or train.device=auto',
            )
        return
    if train.device == "cpu":
        what = "the job asks for a GPU, but train.device is cpu"
        why, fix = "the GPU would be reserved for nothing", "leave slurm.gpus out, or set train.device=auto"
        yield Finding(level="warning", check="gpu", where=where, what=what, why=why, fix=fix)
        return
    if count > 1:
        what, fix = f"the job asks for {count} GPUs", f"ask for one: {kind + ':1' if kind else 1}"
        yield Finding(level="warning", check="gpu", where=where, what=what, why="training uses one", fix=fix)
    if not groups or not kind or any(kind in group.gpus for group in groups):  # else it has been told already
        yield from _gpu_memory(item, trial, kind or _smallest(config, groups))


def _smallest(config: SlurmConfig, groups: Sequence[NodeGroup]) -> str:
    """The GPU type with the least memory among the partition's, where it is known: any of them may be given."""
    names = config.partition.split(",") if config.partition else [g.partition for g in groups if g.is_default]
    types = {kind for group in groups if group.partition in names for kind in group.gpus}
    known = [(gib, kind) for kind in types if (gib := gpu_memory_gib(kind)) is not None]
    return min(known)[1] if known else ""


def _gpu_memory(item: LoadedSpec, trial: Trial, kind: str) -> Iterator[Finding]:
    from tdmpc_lab.agent.memory import CUDA_CONTEXT
    from tdmpc_lab.agent.replay import DEVICE_SHARE

    memory, where = trial.memory, place(item, "slurm.gpus")
    size = gpu_memory_gib(kind)
    needed = memory.total + CUDA_CONTEXT
    if size is None:
        what = f"the memory of GPU type {kind!r} is not known" if kind else "the type of the GPU is not known"
        why = f"training takes about {needed / GIB:.1f} GiB there, which was compared to nothing"
        yield Finding(level="warning", check="gpu-memory", where=where, what=what, why=why)
        return
    replay = replay_size(item, trial)
    if item.spec.train.replay_device == "auto" and replay <= DEVICE_SHARE * (size * GIB - CUDA_CONTEXT):
        needed += replay
    if needed <= _TIGHT * size * GIB:
        return
    parts = f"an update {memory.update / GIB:.1f}, a plan {memory.plan / GIB:.1f}, replay {replay / GIB:.1f}"
    yield Finding(
        level="error" if needed > size * GIB else "warning",
        check="gpu-memory",
        where=where,
        what=f"training takes about {needed / GIB:.1f} GiB, a {kind} has {size}",
        why=f"it may run out of memory; {parts} GiB",
        fix="lower train.batch_size, planner.samples or train.envs, set train.replay_device=host, or take a larger GPU",
    )


def host_findings(item: LoadedSpec, trial: Trial) -> Iterator[Finding]:
    """The job's memory on the node against what it asks for."""
    config = item.spec.slurm
    asked = _memory_mib(config)
    if asked is None:
        return
    on_gpu = gpus_asked_for(config)[1] > 0 and item.spec.train.device != "cpu"
    replay, checkpoint = replay_size(item, trial), checkpoint_size(item, trial)
    # On resuming, the replay lies in memory twice; so does what a checkpoint writes of it, and its file's content.
    bytes_needed = replay + replay + checkpoint + (0 if on_gpu else trial.memory.total)
    needed = bytes_needed / GIB + (_PROCESS_CUDA if on_gpu else _PROCESS_CPU)
    size = asked / MIB_PER_GIB
    if needed <= _TIGHT * size:
        return
    too_much = bytes_needed > size * GIB  # what a process takes by itself is no certain number
    yield Finding(
        level="error" if too_much else "warning",
        check="memory",
        where=place(item, "slurm.memory"),
        what=f"the job takes about {needed:.1f} GiB of memory and asks for {size:.1f}",
        why=f"SLURM {'would' if too_much else 'may'} end it; the replay is {replay / GIB:.1f} GiB, and once more while "
        "a checkpoint is written",
        fix=f"ask for {int(needed * 1.2) + 1}G, or for a smaller train.replay_capacity",
    )


def _memory_mib(config: SlurmConfig) -> float | None:
    """What the job asks for in all; None where that depends on the cluster or is written in another way."""
    per_cpu = str(extra_options(config).get("mem-per-cpu", ""))
    try:
        if per_cpu:
            return memory_mib(per_cpu if per_cpu[-1].isalpha() else f"{per_cpu}M", times=config.cpus)
        return memory_mib(memory_asked_for(config))
    except (ValueError, KeyError):  # sbatch says what is wrong with it
        return None


def disk_findings(project: Project, sizes: Sequence[int]) -> Iterator[Finding]:
    """Room for the checkpoints of these jobs (`checkpoints_size` of each), and folders that can be written."""
    for folder in (project.jobs, project.notes):
        if problem := unwritable(folder):
            yield Finding(
                level="error",
                check="folders",
                what=problem,
                why="a job's files go there",
                fix="see to its permissions",
                outside=True,
            )
    needed, free = sum(sizes), shutil.disk_usage(nearest(project.root)).free
    if needed <= free / 2:
        return
    level: Level = "error" if needed > free else "warning"
    yield Finding(
        level=level,
        check="disk",
        what=f"{free / GIB:.1f} GiB are left on the disk of {project.root}",
        why=f"checkpoints of {len(sizes)} job{'s' * (len(sizes) > 1)} take about {needed / GIB:.1f} GiB",
        fix="make room, or lower train.replay_capacity, which lies there too",
        outside=True,
    )


def unwritable(folder: Path) -> str:
    """Why nothing can be written into a folder that may not exist yet; "" when it can."""
    there = nearest(folder)
    if not there.is_dir():
        return f"{there} is no folder"
    return "" if os.access(there, os.W_OK | os.X_OK) else f"{there} can't be written"
