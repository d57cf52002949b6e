"""What torch sees here, as JSON in a file: python -m gpu_check.facts FILE"""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch


def facts() -> dict[str, Any]:
    """Names and versions that figures hold for; without a CUDA device those of the GPU are None."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "cpus": os.cpu_count(),
        "devices": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "gpu": None,
        "capability": None,
        "memory_gib": None,
    }
    if found["devices"]:
        device = torch.cuda.get_device_properties(torch.cuda.current_device())
        found |= {
            "gpu": device.name,
            "capability": f"{device.major}.{device.minor}",
            "memory_gib": round(device.total_memory / 2**30, 1),
        }
    return found


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(facts()))
