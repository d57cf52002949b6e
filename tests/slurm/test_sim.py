"""The cluster itself: started, broken and stopped by `tools/slurm-sim`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_fixtures import Sim, run_slurm


def processes_of(sim: Sim) -> set[int]:
    """All processes of this cluster, those of its jobs too."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                if f"SLURM_CONF={sim.conf}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.add(int(entry.name))
            except OSError:
                continue
    return found


@pytest.mark.parametrize("accounting", [True, False])
def test_up_twice_and_down_leaves_nothing(accounting: bool, start_cluster: Callable[..., Sim], tmp_path: Path) -> None:
    sim = start_cluster(accounting=accounting)
    before = processes_of(sim)
    daemons = 8 if accounting else 6
    assert len(before) >= daemons  # slurmctld has a process for scripts
    option = () if accounting else ("--no-accounting",)
    assert "was up already" in sim("up", *option)
    assert processes_of(sim) == before
    sim("up", *(("--no-accounting",) if accounting else ()), code=2)
    assert sim("status").count("runs, process") == daemons
    done = run_slurm(sim.conf, "sbatch", "--parsable", f"--chdir={tmp_path}", "--wrap", "touch began; sleep 300")
    assert done.returncode == 0, done.stderr
    subprocess.run(["timeout", "60", "sh", "-c", f"until test -e {tmp_path}/began; do sleep 0.1; done"], check=True)
    sim("down")
    assert processes_of(sim) == set()
    assert "down" in sim("status", code=1)
    sim("down")
    sim("up", *option)
    again = run_slurm(sim.conf, "sbatch", "--parsable", "--wrap", "true")
    assert int(again.stdout) > int(done.stdout)  # ids continue: job folders of before are still there


def test_jobs_get_gpus_of_their_type(cluster: Path, tmp_path: Path) -> None:
    for gpu, count, nodes in (("2080ti", 1, "12"), ("A4000", 3, "34")):
        wrap = 'echo "$SLURMD_NODENAME $CUDA_VISIBLE_DEVICES"'
        done = run_slurm(
            cluster, "sbatch", "--wait", f"--gres=gpu:{gpu}:{count}", f"--output={tmp_path}/{gpu}", "--wrap", wrap
        )
        assert done.returncode == 0, done.stderr
        node, devices = (tmp_path / gpu).read_text().split()
        assert node in {f"tcml-node{n}" for n in nodes}
        assert len(devices.split(",")) == count
