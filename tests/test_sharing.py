"""How files of a shared project are made, what is found closed in it, and how it is opened; any user can do that."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tdmpc_lab.app.health.project import closed_above, init
from tdmpc_lab.cli.main import main
from tdmpc_lab.errors import UsageError
from tdmpc_lab.sharing import is_shared, make_folder, not_shared, reason, share

MINE = os.getegid()
MAKE = """
import sys
from pathlib import Path
from tdmpc_lab.files import file_lock, write_atomic
from tdmpc_lab.sharing import make_folder, own_umask_outside, share_new_files
root, outside = Path(sys.argv[1]), Path(sys.argv[2])
share_new_files(root)
make_folder(root / "jobs" / "1")
write_atomic(root / "jobs" / "1" / "job.json", "{}")
with file_lock(root / "jobs" / "1" / ".lock"):
    pass
with own_umask_outside(outside / "agent.pt"):
    write_atomic(outside / "agent.pt", "")
with own_umask_outside(root / "curve.png"):
    write_atomic(root / "curve.png", "")
"""


def mode(path: Path) -> str:
    return stat.filemode(path.lstat().st_mode)


def make(root: Path, outside: Path, umask: int) -> None:
    subprocess.run([sys.executable, "-c", MAKE, str(root), str(outside)], umask=umask, check=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_in_a_shared_project_files_are_the_group_s_whatever_the_umask(root: Path, tmp_path: Path, umask: int) -> None:
    root.chmod(0o2770)
    make(root, tmp_path, umask)
    assert mode(root / "jobs" / "1") == "drwxrws---"
    for name in ("jobs/1/job.json", "jobs/1/.lock", "curve.png"):
        assert mode(root / name) == "-rw-rw----"
    assert (tmp_path / "agent.pt").stat().st_mode & 0o777 == 0o666 & ~umask  # outside, as the user has it
    assert list(not_shared(root, MINE)) == []


@pytest.mark.parametrize("modes", [0o755, 0o775])
def test_in_a_project_of_one_user_the_umask_says(root: Path, tmp_path: Path, modes: int) -> None:
    root.chmod(modes)
    make(root, tmp_path, 0o002)
    assert mode(root / "jobs" / "1") == "drwxr-x---"
    assert mode(root / "jobs" / "1" / "job.json") == "-rw-rw-r--"


def test_init_opens_a_project_to_its_group_and_closes_it_to_others(root: Path, tmp_path: Path) -> None:
    """The group gets what the owner has; links, hard links, environments and secrets are left alone."""
    init(root)
    (root / "experiments" / "a.yaml").write_text("env: {id: x}")
    (root / "experiments" / "a.yaml").chmod(0o600)
    (root / "kept").write_text("")
    (root / "kept").chmod(0o444)
    (root / "run.sh").write_text("")
    (root / "run.sh").chmod(0o700)
    alone = [root / ".env", root / "linked", tmp_path / "elsewhere", root / ".venv" / "pyvenv.cfg"]
    (root / ".venv").mkdir()
    for path in (alone[0], alone[2], alone[3]):
        path.write_text("")
        path.chmod(0o600)
    alone[1].hardlink_to(alone[2])
    (root / "link").symlink_to(alone[2])
    assert {str(one.path.relative_to(root)) for one in not_shared(root, MINE)} >= {"experiments/a.yaml", "run.sh"}

    made = init(root, shared=True)
    assert (made.made, made.left) == ((), ())
    assert mode(root) == "drwxrws---"
    assert mode(root / "jobs")[:7] == "drwxrws"
    assert mode(root / "experiments" / "a.yaml") == "-rw-rw----"
    assert mode(root / "kept")[:7] == "-r--r--"
    assert mode(root / "run.sh") == "-rwxrwx---"
    assert [mode(path) for path in alone] == ["-rw-------"] * 4
    assert list(not_shared(root, MINE)) == []
    assert share(root, MINE) == (0, [])


def test_init_makes_what_is_missing_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "new/lab"]) == 0
    assert sorted(path.name for path in (tmp_path / "new" / "lab").iterdir()) == ["experiments", "jobs", "notes"]
    assert not is_shared(tmp_path / "new" / "lab")
    monkeypatch.chdir(tmp_path / "new" / "lab" / "notes")
    capsys.readouterr()
    assert main(["init"]) == 0  # of the project around, not a second one in it
    assert "all folders are there" in capsys.readouterr().out
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["file"], "is a file"),
        (["--group", "x"], "give --shared, too"),
        (["--shared", "--group", "no-such-group"], "there is no group 'no-such-group'; yours: "),
    ],
)
def test_init_refuses(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(["init", *words]) == 2
    assert told in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_above_that_keeps_the_group_out(root: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert tmp_path in closed_above(root, MINE)
    tmp_path.chmod(0o711)
    assert tmp_path not in closed_above(root, MINE)


def test_whose_a_file_is_that_is_refused(root: Path) -> None:
    error = PermissionError(13, "Permission denied", str(root / "not" / "there"))
    assert f"{root} belongs to " in reason(error)
    assert reason(OSError(28, "No space left on device", "x")) == "[Errno 28] No space left on device: 'x'"


def test_a_new_folder_s_parents_are_made_and_it_is_made_once(root: Path) -> None:
    make_folder(root / "a" / "b")
    with pytest.raises(FileExistsError):
        make_folder(root / "a" / "b")
    make_folder(root / "a" / "b", exist_ok=True)


def test_a_group_that_one_is_not_in(root: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may share with any group")
    with pytest.raises(UsageError, match="you are not in the group"):
        init(root, shared=True, group="0")
