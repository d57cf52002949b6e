"""Asking a module of this package a question in a process of its own: what ends that process ends no job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

CHILD_S = 180.0


def ask(module: str, *arguments: str) -> str:
    """The last line that `python -m module arguments` says, or in words why there is none."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "OMP_NUM_THREADS": "2",
        "PYTHONIOENCODING": "utf-8",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            check=False,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            timeout=CHILD_S,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return f"it took more than {CHILD_S:.0f} s"
    except OSError as error:
        return f"its process could not be started: {error}"
    if done.returncode < 0:
        return f"its process was ended by {signal.Signals(-done.returncode).name}"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return lines[-1] if lines else f"its process ended with exit code {done.returncode}"
