"""Whether plans and updates may be captured in CUDA graphs here: what `agent.cuda_graphs: auto` asks before a job.

python -m gpu_check.captures DEVICE FILE

Exit code 1 where the answer is no. It asks a process of its own, as a job does; on a CPU, where jobs don't ask, too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tdmpc_lab.agent import graphs, graphs_check
from tdmpc_lab.agent.device import resolve_device


def main(device_name: str, file: Path) -> int:
    """Write the answer; the exit code."""
    device = resolve_device(device_name)
    said = graphs.verdict(str(device)) if device.type == "cuda" else graphs_check.compare(str(device))
    file.write_text(json.dumps({"said": said}))
    print(f"CUDA graphs: {said}")
    return int(said != graphs.GOOD)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
