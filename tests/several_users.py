"""A project for several users of this machine, each with a user id of his own: only root can be all of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"
GROUP = 20100
COMMAND_S = 120
_TRIES = 40


@dataclass(frozen=True)
class User:
    """Somebody who works in `root`, with the umask of his shell."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    umask: int
    root: Path
    environ: Mapping[str, str]

    def run(self, *words: str, code: int | None = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run `tdmpc-lab WORDS`; `code` is the exit code expected."""
        return self.call(python_for_all(), "-m", "tdmpc_lab", *words, code=code, cwd=cwd)

    def call(self, *words: str, code: int | None = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run any command as this user."""
        done = subprocess.run(
            words,
            cwd=cwd or self.root,
            env=self.environ,
            user=self.uid,
            group=self.gid,
            extra_groups=self.groups,
            umask=self.umask,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        if code is not None:
            assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder that every user of the machine gets to: pytest's own are closed."""
    folder = Path(tempfile.mkdtemp(prefix="lab-", dir="/tmp"))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        for _ in range(_TRIES):
            shutil.rmtree(folder, ignore_errors=True)  # what a command left at work may still write there
            if not folder.exists():
                break
            time.sleep(0.5)


def make_user(folder: Path, uid: int, gid: int, groups: tuple[int, ...], umask: int, **more: str) -> User:
    """A user with a home in `folder`, who works in its `project`."""
    home = folder / f"home-{uid}"
    home.mkdir(mode=0o700)
    os.chown(home, uid, gid)
    path = os.pathsep.join([str(folder / "project"), str(SOURCE), sysconfig.get_path("purelib")])
    dropped = ("USER", "LOGNAME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "PYTHONPATH", "GIT_CONFIG_GLOBAL")
    environ = {name: value for name, value in os.environ.items() if name not in dropped}
    environ |= {"HOME": str(home), "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200", **more}
    return User(uid, gid, groups, umask, folder / "project", environ)


@cache
def python_for_all() -> str:
    """A Python that other users may run, with this one's packages. Skips the test where there is none."""
    if os.geteuid() != 0:
        pytest.skip("only root can work as several users")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = sysconfig.get_path("purelib")
    for python in dict.fromkeys([sys.executable, shutil.which(version, path="/usr/local/bin:/usr/bin") or ""]):
        command = [python, "-c", "import submitit, yaml, tdmpc_lab"]
        try:
            done = subprocess.run(
                command,
                cwd="/",
                user=20001,
                group=20001,
                extra_groups=[],
                env={"PYTHONPATH": os.pathsep.join([str(SOURCE), packages])},
                capture_output=True,
                timeout=COMMAND_S,
                check=False,
            )
        except OSError:  # not there, or in a folder that only root gets to
            continue
        if done.returncode == 0:
            return python
    pytest.skip(f"other users can run neither {sys.executable} nor a {version} with its packages")
