"""`tools/slurm-sim` where things go wrong; stand-ins take the place of SLURM's programs, so none is needed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from several_users import python_for_all

SLURM_SIM = Path(__file__).resolve().parents[2] / "tools" / "slurm-sim"
NAMES = ("munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd", "mariadb-install-db", "sbatch", "sinfo", "scontrol")
# Makes the socket that its command line asks for, and stays.
STAYS = 'for word; do case "$word" in --socket=*) : > "${word#--socket=}";; esac; done\nexec sleep 300'
BREAKS = "echo 'fatal: broken on purpose' >&2; exit 1"


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder with a short path, as a cluster needs it: pytest's own gets long with several workers."""
    with tempfile.TemporaryDirectory(prefix="sim-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder of stand-ins; all of them end at once and well, but munged."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in NAMES:
        stand_in(folder, name, "exit 0")
    stand_in(folder, "munged", STAYS)
    return folder


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is no business of the cluster's."""
    process = subprocess.Popen(["sleep", "300"])
    yield process
    process.kill()
    process.wait()


def stand_in(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def sim(folder: Path, programs: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(programs), "/usr/bin", "/bin"])
    return subprocess.run(
        [sys.executable, str(SLURM_SIM), *words, "--dir", str(folder)],
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def processes_of(folder: Path) -> list[str]:
    """The command lines of all processes that name this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                line = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in line:
                found.append((entry / "cmdline").read_bytes().decode())
    return found


def test_missing_packages(tmp_path: Path) -> None:
    folder = tmp_path / "sim"
    done = subprocess.run(
        [sys.executable, str(SLURM_SIM), "up", "--dir", str(folder)],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert "not installed: " in done.stderr
    assert "sbatch" in done.stderr
    assert "apt-get install --yes --no-install-recommends slurm-wlm munge slurmdbd" in done.stderr
    assert not folder.exists()


def test_a_daemon_that_does_not_start(tmp_path: Path, programs: Path) -> None:
    """The end of its log is shown, and what had started before it is stopped."""
    stand_in(programs, "slurmctld", BREAKS)
    stand_in(programs, "scontrol", "exit 1")
    folder = tmp_path / "s"
    done = sim(folder, programs, "up", "--no-accounting")
    assert done.returncode == 1, done.stderr
    assert "slurmctld ended at its start" in done.stderr
    assert "fatal: broken on purpose" in done.stderr
    assert processes_of(folder) == []
    assert list((folder / "run").glob("*.pid")) == []
    assert sim(folder, programs, "status").returncode == 1
    assert sim(folder, programs, "down").returncode == 0


def test_down_stops_its_own_processes_only(tmp_path: Path, programs: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """A pid file of before a restart of the machine names a process that is another one by now."""
    folder = tmp_path / "s"
    (folder / "run").mkdir(parents=True)
    pid_file = folder / "run" / "munged.pid"
    pid_file.write_text(f"{sleeper.pid} 12345\n")
    assert sim(folder, programs, "down").returncode == 0
    assert sleeper.poll() is None
    assert not pid_file.exists()


@pytest.mark.parametrize(
    ("name", "words"), [("x" * 120, "more than 107 characters"), ("a b", "can't stand in slurm.conf")]
)
def test_folders_that_can_not_be_used(name: str, words: str, tmp_path: Path, programs: Path) -> None:
    done = sim(tmp_path / name, programs, "up")
    assert done.returncode == 2
    assert words in done.stderr
    assert not (tmp_path / name).exists()


def test_another_folder_is_not_removed(tmp_path: Path, programs: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    assert sim(tmp_path / "mine", programs, "down", "--remove").returncode == 2
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_never_started(tmp_path: Path, programs: Path) -> None:
    assert sim(tmp_path / "s", programs, "status").returncode == 1
    # Quoted where the project's folder has a space in its name.
    assert "slurm-sim up" in sim(tmp_path / "s", programs, "env").stderr.replace("'", "")
    assert sim(tmp_path / "s", programs, "down").returncode == 0
    assert sim(tmp_path / "s", programs, "down", "--remove").returncode == 0
    assert not (tmp_path / "s").exists()


def test_only_root_can_run_jobs_of_other_users(tmp_path: Path, programs: Path) -> None:
    tmp_path.chmod(0o755)
    python = python_for_all()
    done = subprocess.run(
        [python, str(SLURM_SIM), "up", "--all-users", "--dir", "/tmp/never-made"],
        env={**os.environ, "PATH": os.pathsep.join([str(programs), "/usr/bin", "/bin"])},
        user=20001,
        group=20001,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "only root can run jobs of other users" in done.stderr
    assert not Path("/tmp/never-made").exists()
