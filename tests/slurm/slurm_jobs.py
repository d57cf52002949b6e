"""Functions that run as jobs, by themselves: without the trainer a job starts in a second."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tdmpc_lab.launch.slurm import running_id


def work(text: str) -> None:
    """Say what this process knows of itself."""
    print(text, running_id(), Path.cwd(), os.environ.get("SLURM_CPU_BIND"), flush=True)


def nap() -> None:
    """Wait to be cancelled."""
    time.sleep(100)
