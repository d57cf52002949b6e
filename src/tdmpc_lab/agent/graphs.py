"""Whether plans and updates may be captured in CUDA graphs here: found out in a process of its own.

A capture that torch, the driver or the GPU does not bear ends that process and no job. `good` is kept beside the
compiled kernels, by GPU, torch and the sources; everything else is asked again by the next job.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tdmpc_lab.agent.child import ask
from tdmpc_lab.agent.native.build import UnavailableError, cache_folder, write_whole

if TYPE_CHECKING:
    pass

GOOD = "good"
KEPT = "tested.json"
CHECK = "tdmpc_lab.agent.graphs_check"  # by name: nobody imports it


@functools.cache
def verdict(device: str) -> str:
    """`good`, or why it is not. Asked once by a process."""
    try:
        kept = cache_folder(f"graphs-{_key(device)}") / KEPT
    except UnavailableError:
        return ask(CHECK, device)
    if kept.is_file():
        return GOOD
    said = ask(CHECK, device)
    if said == GOOD:
        try:
            write_whole(kept, json.dumps({"said": said}).encode())
        except OSError as error:  # asked again the next time
            print(f"warning: {kept} could not be written: {error}", file=sys.stderr)
    return said


def _key(device: str) -> str:
    """Names one state of the sources, torch and kind of GPU."""
    sources = [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py"))]
    state = [*sources, str(torch.__version__), str(torch.version.cuda), torch.cuda.get_device_name(device)]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:20]
