"""What the cluster has, from one call of sinfo, and whether what a job asks for exists there. Pure but for the call.

Also here: what is known of GPU types by the names that clusters give them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from tdmpc_lab.config.durations import format_duration
from tdmpc_lab.config.schema import SlurmConfig
from tdmpc_lab.errors import Finding, Level
from tdmpc_lab.launch.commands import command
from tdmpc_lab.launch.options import extra_options
from tdmpc_lab.launch.sbatch import memory_asked_for

_SINFO = ("sinfo", "--all", "--exact", "--noheader", "--format=%P|%a|%l|%c|%m|%G|%D|%T")
_OUT_OF_USE = ("down", "drain", "fail", "maint", "unknown", "power", "reboot", "inval", "perfctrs")
_MIB = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}


@dataclass(frozen=True)
class NodeGroup:
    """Nodes of one partition that are alike."""

    partition: str
    is_default: bool
    up: bool
    """Whether the partition takes and starts jobs."""
    limit: timedelta | None
    """The partition's time limit; None for none."""
    cpus: int
    memory_mib: int
    gpus: dict[str, int] = field(default_factory=dict)
    """GPUs of a node by type; those without a type under "" ."""
    nodes: int = 1
    in_use: bool = True
    """Whether jobs can run on them at all: not down, not drained."""


def ask_nodes() -> list[NodeGroup]:
    """All partitions with their nodes. Raises ExternalError when SLURM is missing or does not answer."""
    return parse_sinfo(command(_SINFO))


def parse_sinfo(text: str) -> list[NodeGroup]:
    """Node groups from sinfo's lines; lines that mean nothing here are left out."""
    groups = []
    for line in text.splitlines():
        parts = line.strip().split("|")
        if len(parts) != 8 or not parts[0]:
            continue
        name, up, limit, cpus, memory, gres, nodes, state = parts
        groups.append(
            NodeGroup(
                partition=name.rstrip("*"),
                is_default=name.endswith("*"),
                up=up.lower() == "up",
                limit=_limit(limit),
                cpus=_number(cpus),
                memory_mib=_number(memory),
                gpus=_gpus(gres),
                nodes=_number(nodes),
                in_use=not state.lower().startswith(_OUT_OF_USE) and not state.endswith(("*", "!", "$", "@")),
            )
        )
    return groups


def _number(text: str) -> int:
    match = re.match(r"\d+", text)
    return int(match[0]) if match else 0


def _limit(text: str) -> timedelta | None:
    """SLURM's `15:00` (minutes), `12:00:00`, `1-00:00:00`; None for `infinite`."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def _gpus(gres: str) -> dict[str, int]:
    """`gpu:2080ti:4(S:0-1),gpu:A4000:2` as numbers by type."""
    found: dict[str, int] = {}
    for entry in re.sub(r"\([^)]*\)", "", gres).split(","):
        parts = entry.split(":")
        if parts[0] == "gpu" and parts[-1].isdecimal():
            kind = ":".join(parts[1:-1])
            found[kind] = found.get(kind, 0) + int(parts[-1])
    return found


def mismatches(config: SlurmConfig, groups: Sequence[NodeGroup]) -> list[Finding]:
    """What a job asks for that no node has, all of it."""
    names = config.partition.split(",") if config.partition else [g.partition for g in groups if g.is_default][:1]
    known = list(dict.fromkeys(group.partition for group in groups))
    problems = [_no_partition(name, known) for name in names if name not in known]
    mine = [group for group in groups if group.partition in names]
    if problems or not mine:  # a cluster without a default partition takes care of that itself
        return problems
    return [*_of_partitions(config, mine, groups), *_of_nodes(config, mine, groups)]


def _mismatch(key: str, what: str, why: str, fix: str, level: Level = "error", *, outside: bool = False) -> Finding:
    check = "partition-time" if key == "slurm.time" else "slurm"
    return Finding(level, check, what, fix, why, key=key, outside=outside)


def _no_partition(name: str, known: Sequence[str]) -> Finding:
    near = difflib.get_close_matches(name, known, n=1)
    fix = f"did you mean {near[0]!r}?" if near else "choose one of these"
    return _mismatch("slurm.partition", f"there is no partition {name!r}", f"the cluster has {', '.join(known)}", fix)


def _of_partitions(config: SlurmConfig, mine: Sequence[NodeGroup], groups: Sequence[NodeGroup]) -> Iterator[Finding]:
    names = ", ".join(dict.fromkeys(group.partition for group in mine))
    if not any(group.up for group in mine):
        why = "no job of it is started until the administrators open it again"
        others = list(dict.fromkeys(group.partition for group in groups if group.up))
        fix = f"choose one that is up ({', '.join(others)}), or wait" if others else "ask the administrators"
        yield _mismatch("slurm.partition", f"partition {names} is not up", why, fix, outside=True)
    limits = [group.limit for group in mine]
    longest = None if None in limits else max(limit for limit in limits if limit is not None)
    if longest is not None and config.time > longest:
        what = f"found {format_duration(config.time)}, but partition {names} has a limit of {format_duration(longest)}"
        room = [g.partition for g in groups if g.limit is None or g.limit >= config.time]
        less = f"ask for slurm.time={format_duration(longest)} or less"
        fix = f"{less}, or for partition {' or '.join(dict.fromkeys(room))}" if room else less
        yield _mismatch("slurm.time", what, "SLURM takes such a job and never starts it", fix)


def _of_nodes(config: SlurmConfig, mine: Sequence[NodeGroup], groups: Sequence[NodeGroup]) -> Iterator[Finding]:
    """GPUs first, then memory and CPUs on the nodes that have these GPUs."""
    names = ", ".join(dict.fromkeys(group.partition for group in mine))
    kind, count = gpus_asked_for(config)
    fit = list(mine)
    if count:
        typed = [g for g in mine if _count(g, kind)]
        fit = [g for g in mine if _count(g, kind) >= count]
        if not typed:
            yield _no_gpu(kind, names, mine, groups)
        elif not fit:
            most = max(_count(g, kind) for g in typed)
            label = f"GPUs of type {kind}" if kind else "GPUs"
            what = f"found {count}, but no node of partition {names} has more than {most} {label}"
            yield _mismatch("slurm.gpus", what, "a job runs on one node", f"ask for at most {most}")
        if not fit:
            return
    memory = memory_mib(memory_asked_for(config))
    most_memory, most_cpus = max(g.memory_mib for g in fit), max(g.cpus for g in fit)
    where = f"no node of partition {names}" + (" with these GPUs" if count else "")
    if memory is not None and memory > most_memory:
        what = f"found {memory_asked_for(config)}, but {where} has more than {most_memory / 1024:.1f}G"
        yield _mismatch("slurm.memory", what, "no node could ever take the job", f"ask for at most {most_memory}M")
    if config.cpus > most_cpus:
        what = f"found {config.cpus}, but {where} has more than {most_cpus}"
        yield _mismatch("slurm.cpus", what, "no node could ever take the job", f"ask for at most {most_cpus}")
    open_ones = [g for g in fit if g.up]
    if open_ones and not any(g.in_use for g in open_ones):
        what = f"all nodes of partition {names} that fit are down or drained now"
        yield _mismatch("slurm.partition", what, "the job waits until one is back", "`sinfo -R` tells why", "warning")


def gpus_asked_for(config: SlurmConfig) -> tuple[str, int]:
    """Type ("" for any) and number of GPUs; also where an extra option asks for them. 0 for none."""
    extra = extra_options(config)
    text = str(config.gpus) if config.gpus is not None else ""
    for option in ("gpus", "gpus-per-node", "gpus-per-task"):
        text = text or str(extra.get(option, ""))
    if not text and str(extra.get("gres", "")).startswith("gpu"):
        text = str(extra["gres"]).partition(":")[2] or "1"
    kind, _, count = text.rpartition(":")
    if not count.isdecimal():  # --gpus=2080ti is one of them
        kind, count = count, "1" if count else "0"
    return kind, int(count)


def memory_mib(text: str | None, times: int = 1) -> float | None:
    """SLURM's `16G` in MiB; None for nothing. Raises ValueError and KeyError for another form."""
    return None if text is None else times * int(text[:-1]) * _MIB[text[-1].upper()]


def _count(group: NodeGroup, kind: str) -> int:
    return group.gpus.get(kind, 0) if kind else sum(group.gpus.values())


def _no_gpu(kind: str, names: str, mine: Sequence[NodeGroup], groups: Sequence[NodeGroup]) -> Finding:
    types = sorted({name for group in mine for name in group.gpus})
    has = ", ".join(f"{name or 'GPUs without a type'}" for name in types) or "no GPUs"
    elsewhere = list(dict.fromkeys(group.partition for group in groups if _count(group, kind)))
    near = difflib.get_close_matches(kind.lower(), [name.lower() for name in types], n=1)
    if near:
        meant = next(name for name in types if name.lower() == near[0])
        fix = f"did you mean {meant!r}? Types are told apart by upper and lower case"
    else:
        fix = f"partition {' or '.join(elsewhere)} has them" if elsewhere else "choose one of these"
    what = f"no node of partition {names} has a GPU" + (f" of type {kind!r}" if kind else "")
    return _mismatch("slurm.gpus", what, f"they have {has}", fix)


# GiB of memory. Where a card comes in two sizes, the smaller one.
_GIB = {
    "1080": 8, "1080ti": 11, "2070": 8, "2080": 8, "2080ti": 11, "3060": 12, "3070": 8, "3080": 10, "3090": 24,
    "4060ti": 8, "4070": 12, "4080": 16, "4090": 24, "5080": 16, "5090": 32,
    "titanx": 12, "titanxp": 12, "titanv": 12, "titanrtx": 24,
    "a2": 16, "a10": 24, "a16": 16, "a30": 24, "a40": 48, "a100": 40, "a2000": 6, "a4000": 16, "a4500": 20, "a5000": 24,
    "a5500": 24, "a6000": 48, "6000ada": 48, "rtx6000": 24, "rtx8000": 48, "l4": 24, "l40": 48, "l40s": 48,
    "h100": 80, "h200": 141, "b200": 180, "gh200": 96, "k80": 12, "m40": 12, "p40": 24, "p100": 12, "t4": 16,
    "v100": 16,
}  # fmt: skip
# What stands around the name of a card: `nvidia_geforce_rtx_2080_ti`, `rtx_a4000`, `a100-80gb`.
_BRANDS = ("nvidia", "geforce", "quadro", "tesla", "rtx", "gtx")


def gpu_memory_gib(name: str) -> int | None:
    """Memory of a GPU type in GiB, None where the name is not known. A size in the name counts: `a100_80gb`."""
    words = [word for word in name.lower().replace("-", "_").split("_") if word]
    for word in words:
        if word.endswith("gb") and word[:-2].isdecimal():
            return int(word[:-2])
    joined = "".join(words)
    while True:
        if joined in _GIB:
            return _GIB[joined]
        brand = next((brand for brand in _BRANDS if joined.startswith(brand) and joined != brand), None)
        if brand is None:
            return None
        joined = joined.removeprefix(brand)
