"""Cutting a sweep into job arrays, and finding what interrupted submits left in the queue."""

from __future__ import annotations

from pathlib import Path

import pytest

from tdmpc_lab.config.schema import SlurmConfig
from tdmpc_lab.errors import ExternalError
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.launch.sbatch import sbatch_script
from tdmpc_lab.launch.slurm import even_chunks, max_array_size, submitting, task_ids, unfinished


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def script(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_the_largest_array_of_the_cluster(commands: Path) -> None:
    with pytest.raises(ExternalError):
        max_array_size()
    script(commands, "scontrol", "echo 'MaxArrayTasks = 7'; echo 'MaxArraySize            = 301'")
    assert max_array_size() == 301
    script(commands, "scontrol", "echo 'MaxArraySize = 0'")  # arrays are off: every job for itself
    assert max_array_size() == 1
    script(commands, "scontrol", "echo nothing")
    assert max_array_size() == 1001


def test_chunks_are_even_and_keep_the_order() -> None:
    assert even_chunks(range(5), 4) == [[0, 1], [2, 3, 4]]
    assert even_chunks(range(4), 4) == [[0, 1, 2, 3]]
    assert even_chunks(range(3), 1) == [[0], [1], [2]]
    parts = even_chunks(range(1000), 301)
    assert [len(part) for part in parts] == [250] * 4
    assert [item for part in parts for item in part] == list(range(1000))


def test_the_ids_of_tasks() -> None:
    assert task_ids("7", 3) == ["7_0", "7_1", "7_2"]
    assert task_ids("7", 1) == ["7"]


def test_how_many_run_at_once(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert "#SBATCH --array=0-5%2\n" in sbatch_script(project, SlurmConfig(array_limit=2), "x", tasks=6)
    assert "#SBATCH --array=0-999%1000\n" in sbatch_script(project, SlurmConfig(), "x", tasks=1000)
    assert "--array" not in sbatch_script(project, SlurmConfig(array_limit=2), "x")


def abandoned(project: Project) -> str:
    with pytest.raises(KeyboardInterrupt), submitting(project) as mark:
        raise KeyboardInterrupt
    return mark


def test_a_submit_that_came_to_its_end_leaves_nothing_to_look_for(commands: Path, tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert unfinished(project) == []
    with submitting(project):
        assert unfinished(project) == []  # it is still at it: no squeue is asked, there is none here
    assert list((project.jobs / ".submitit").iterdir()) == []


def test_what_was_left_is_found_by_its_mark(commands: Path, tmp_path: Path) -> None:
    project = Project(tmp_path)
    mark, gone = abandoned(project), abandoned(project)
    with pytest.raises(ExternalError):
        unfinished(project)
    lines = [
        "7_[1-2%1]|" + mark,
        "7_0|" + mark,
        "9|" + mark,
        "8|tdmpc-lab-0123456789abcdef",
        "4%1|x",
        "3|",
        "x_[|" + mark,
    ]
    script(commands, "squeue", "\n".join(f"echo '{line}'" for line in lines))
    for job_id in ("7_0", "7_1", "9"):
        project.job(job_id).folder.mkdir(parents=True)
        project.job(job_id).record.write_text("{}")
    found = {left.id: left.recorded for left in unfinished(project)}
    assert found == {"7": False, "9": True}
    assert [path.stem for path in (project.jobs / ".submitit").iterdir()] == [mark]
    assert gone != mark
    script(commands, "squeue", "")
    assert unfinished(project) == []
    assert list((project.jobs / ".submitit").iterdir()) == []
