"""How busy the GPU that a job owns is, and the job's process: sampled now and then, and put into the training's rows.

`system/gpu_percent`, `system/gpu_watts` and `system/gpu_memory_mb` are the whole device's, `system/cpu_percent` (100 is
one core) and `system/memory_mb` (resident) this process's. On a machine without a GPU nothing is sampled.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from tdmpc_lab.training.metrics import MetricSink

Sample = dict[str, float]
FIRST_S, EVERY_S = 10.0, 60.0
_SMI_S = 20.0  # it has been seen to hang on a broken driver
_QUERY = {"utilization.gpu": "system/gpu_percent", "power.draw": "system/gpu_watts"}


class SystemSink:
    """Hands rows on to another sink; the next row of the training after a sample gets its values."""

    def __init__(self, sink: MetricSink) -> None:
        self._sink = sink
        self._latest: Sample = {}
        self._stop = threading.Event()

    def watch(self, sample: Callable[[], Sample], first_s: float = FIRST_S, every_s: float = EVERY_S) -> None:
        """Sample in a thread of its own from now on, until `close`; a sample that fails is the last one."""

        def run() -> None:
            wait = first_s
            with contextlib.suppress(Exception):  # whatever a driver raises: the training does not depend on it
                while not self._stop.wait(wait):
                    self._latest, wait = sample(), every_s

        threading.Thread(target=run, name="system-metrics", daemon=True).start()

    def log(self, row: Mapping[str, Any]) -> None:
        values: Sample = {}
        if row.get("split") == "train":
            values, self._latest = self._latest, {}
        self._sink.log({**row, **values})

    def mark(self) -> int:
        return self._sink.mark()

    def rewind(self, mark: int) -> None:
        self._sink.rewind(mark)

    def holds(self, mark: int) -> bool:
        return self._sink.holds(mark)

    def sync(self) -> None:
        self._sink.sync()

    def close(self) -> None:
        self._stop.set()
        self._sink.close()


def gpu_sampler(device: torch.device) -> Callable[[], Sample]:
    """What samples this CUDA device and this process."""
    uuid = str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))
    process = ProcessUse()

    def sample() -> Sample:
        free, total = torch.cuda.mem_get_info(device)
        return {"system/gpu_memory_mb": (total - free) / 1e6, **ask_driver(uuid), **process.sample()}

    return sample


def ask_driver(uuid: str) -> Sample:
    """Load and power of the GPU with this id by `nvidia-smi`; nothing where that, or a value, is not to be had."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"]
    if uuid:
        command += ["-i", uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="ascii",
            errors="replace",
            timeout=_SMI_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    lines = done.stdout.splitlines()
    found: Sample = {}
    for name, text in zip(_QUERY.values(), lines[0].split(",") if len(lines) == 1 else (), strict=False):
        with contextlib.suppress(ValueError):  # `[N/A]`
            found[name] = float(text)
    return found


class ProcessUse:
    """CPU time between two samples, and resident memory."""

    def __init__(self) -> None:
        self._last = self._now()

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.monotonic(), time.process_time()

    def sample(self) -> Sample:
        """Since the sample before."""
        (wall, cpu), self._last = self._last, self._now()
        use = {"system/cpu_percent": 100 * (self._last[1] - cpu) / max(self._last[0] - wall, 1e-9)}
        with contextlib.suppress(OSError, ValueError, IndexError):  # no Linux
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            use["system/memory_mb"] = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
        return use
