"""How many CPUs a job may keep busy, so that jobs on one machine do not fight over them."""

from __future__ import annotations

import os

SHARE_VARIABLE = "TDMPC_LAB_CPUS"
"""Set for local jobs that run beside others: as many CPUs as each of them gets."""
SLURM_VARIABLES = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")


def cpus_here() -> int:
    """CPUs this process may run on: what SLURM or taskset left it, not what the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_cpus() -> int:
    """`cpus_here`, or fewer: a local job's share, and in a SLURM job what was asked for.

    Not every cluster binds its jobs to their CPUs, and more threads than CPUs wait for each other.
    """
    limits = [cpus_here()]
    named = os.environ.get(SHARE_VARIABLE) or next((os.environ[v] for v in SLURM_VARIABLES if os.environ.get(v)), "")
    if named.isdecimal() and int(named) > 0:
        limits.append(int(named))
    return min(limits)
