"""What sinfo tells, and what of a job's request it does not fit. The lines are those of a real cluster."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tdmpc_lab.config.schema import SlurmConfig
from tdmpc_lab.launch.nodes import NodeGroup, gpu_memory_gib, gpus_asked_for, mismatches, parse_sinfo

SINFO = """\
test*|up|15:00|16|64000|gpu:2080ti:4|2|idle
day|up|1-00:00:00|16|64000|gpu:2080ti:4(S:0-1)|2|mixed
day|up|1-00:00:00|32|128000|gpu:A4000:2,gpu:A6000:1|2|idle
cpu|up|infinite|64|256000|(null)|8|allocated
old|down|7-00:00:00|8|16000|gpu:4|1|idle
broken|up|2:00:00|16|64000|gpu:1080ti:4|3|drained
broken|up|2:00:00|16|64000|gpu:1080ti:4|1|idle*
slurm_load_partitions: nonsense
"""
GROUPS = parse_sinfo(SINFO)
CONFIG = SlurmConfig(partition="day", gpus="2080ti:1", cpus=4, memory="16G", time=timedelta(hours=24))

BROKEN = {"partition": "broken", "gpus": "1080ti:1", "time": timedelta(hours=1)}


def test_the_lines_are_read() -> None:
    assert len(GROUPS) == 7
    assert GROUPS[0] == NodeGroup("test", True, True, timedelta(minutes=15), 16, 64000, {"2080ti": 4}, 2, True)
    assert GROUPS[2].gpus == {"A4000": 2, "A6000": 1}
    assert (GROUPS[3].limit, GROUPS[3].gpus, GROUPS[3].in_use) == (None, {}, True)
    assert (GROUPS[4].up, GROUPS[4].gpus) == (False, {"": 4})
    assert [group.in_use for group in GROUPS[5:]] == [False, False]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"partition": None, "time": timedelta(minutes=15)},
        {"partition": "test,day"},
        {"gpus": 3},
        {"gpus": "A4000:2", "memory": "125G", "cpus": 32},
        {"gpus": None, "memory": None, "extra": {"gres": "gpu:A6000:1"}},
        {"partition": "cpu", "gpus": None, "cpus": 64, "memory": "250G", "time": timedelta(days=90)},
        {"memory": None, "extra": {"mem-per-cpu": "900G"}},  # left to sbatch
    ],
)
def test_what_exists(changes: dict[str, Any]) -> None:
    assert mismatches(replace(CONFIG, **changes), GROUPS) == []


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"partition": "dya"}, "slurm.partition", "the cluster has test, day, cpu, old, broken (did you mean 'day'?)"),
        ({"partition": "day,nix"}, "slurm.partition", "there is no partition 'nix'"),
        ({"partition": "old", "gpus": 1, "memory": "1G"}, "slurm.partition", "partition old is not up: no job of it"),
        (BROKEN, "slurm.partition", "that fit are down or drained now: the job waits until"),
        ({"time": timedelta(days=2)}, "slurm.time", "2-00:00:00, but partition day has a limit of 1-00:00:00: SLURM"),
        ({"partition": None}, "slurm.time", "but partition test has a limit of 00:15:00"),
        ({"gpus": "2080TI:1"}, "slurm.gpus", "'2080TI': they have 2080ti, A4000, A6000 (did you mean '2080ti'?"),
        ({"gpus": "h100:1"}, "slurm.gpus", "(choose one of these)"),
        ({"gpus": "1080ti:1"}, "slurm.gpus", "of type '1080ti'"),
        ({"partition": "cpu"}, "slurm.gpus", "they have no GPUs (partition test or day has them)"),
        ({"gpus": "2080ti:8"}, "slurm.gpus", "found 8, but no node of partition day has more than 4 GPUs of"),
        ({"memory": "100G"}, "slurm.memory", "no node of partition day with these GPUs has more than 62.5"),
        ({"cpus": 17}, "slurm.cpus", "found 17, but no node of partition day with these GPUs has more than 16"),
    ],
)  # fmt: skip
def test_what_does_not(changes: dict[str, Any], key: str, words: str) -> None:
    (found,) = mismatches(replace(CONFIG, **changes), GROUPS)
    assert found.key == key
    assert words in f"{found.what}: {found.why} ({found.fix})"
    assert found.outside == ("not up" in found.what)
    assert found.level == ("warning" if "drained" in found.what else "error")


def test_all_at_once() -> None:
    config = replace(CONFIG, time=timedelta(days=8), memory="1T", cpus=99)
    assert [m.key for m in mismatches(config, GROUPS)] == ["slurm.time", "slurm.memory", "slurm.cpus"]


def test_a_cluster_without_a_default_partition_decides_itself() -> None:
    assert mismatches(replace(CONFIG, partition=None), [group for group in GROUPS if not group.is_default]) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"gpus": None}, ("", 0)),
        ({"gpus": 2}, ("", 2)),
        ({"gpus": None, "extra": {"gpus_per_node": "a100:3"}}, ("a100", 3)),
        ({"gpus": None, "extra": {"gpus": "a100"}}, ("a100", 1)),
        ({"gpus": None, "extra": {"gres": "gpu"}}, ("", 1)),
        ({"gpus": None, "extra": {"gres": "disk:5"}}, ("", 0)),
    ],
)
def test_gpus_asked_for(changes: dict[str, Any], expected: tuple[str, int]) -> None:
    assert gpus_asked_for(replace(CONFIG, **changes)) == expected


@pytest.mark.parametrize(
    ("name", "gib"),
    [
        ("2080ti", 11), ("A4000", 16), ("rtx_a4000", 16), ("NVIDIA_GeForce_RTX_2080_Ti", 11), ("a100_80gb", 80),
        ("a100-sxm4-40gb", 40), ("Tesla-V100", 16), ("rtx8000", 48), ("rtx6000", 24), ("gpu", None), ("rtx", None),
    ],
)  # fmt: skip
def test_memory_of_gpu_types(name: str, gib: int | None) -> None:
    assert gpu_memory_gib(name) == gib
