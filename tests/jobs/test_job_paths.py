from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest

from tdmpc_lab.errors import UsageError
from tdmpc_lab.jobs.find import job_ids, require_job, require_jobs, tasks_of
from tdmpc_lab.jobs.paths import JobPaths, Project, find_project
from tdmpc_lab.jobs.record import JobRecord


def put_job(project: Project, job_id: str, submitted_at: str = "2026-02-03T09:00:00+01:00") -> JobPaths:
    paths = project.job(job_id)
    paths.folder.mkdir(parents=True)
    record = JobRecord(
        id=job_id,
        experiment="quickstart",
        group="0123456789",
        seed=1,
        cluster="local",
        spec_file="experiments/quickstart.yaml",
        submitted_at=submitted_at,
        steps_total=5000,
    )
    paths.record.write_text(json.dumps(asdict(record)))
    return paths


def test_file_names_of_a_job(tmp_path: Path) -> None:
    paths = Project(tmp_path).job("1971498_3")
    assert paths.id == "1971498_3"
    names = (
        "spec",
        "resolved",
        "record",
        "events",
        "metrics",
        "checkpoints",
        "log_out",
        "log_err",
        "note_lock",
    )
    assert [getattr(paths, name).relative_to(tmp_path / "jobs" / "1971498_3").as_posix() for name in names] == [
        "spec.yaml",
        "resolved.yaml",
        "job.json",
        "events.jsonl",
        "metrics.jsonl",
        "checkpoints",
        "log.out",
        "log.err",
        ".note.lock",
    ]


def test_folders_of_a_project(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert project.experiments == tmp_path / "experiments"
    assert project.mlruns == tmp_path / "mlruns"
    assert project.note("17") == tmp_path / "notes" / "17.md"


@pytest.mark.parametrize("text", ["../../x", "/etc/passwd", "", ".", "4%1", "a\0b", "1/../2"])
def test_what_is_no_id_is_refused_with_what_one_looks_like(tmp_path: Path, text: str) -> None:
    project = Project(tmp_path)
    for use in (project.job, project.note, partial(require_job, project)):
        with pytest.raises(UsageError, match="an id looks like 1971498, 1971498_3"):
            use(text)


def test_what_the_queue_calls_several_tasks_is_no_job(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"123_\[1,3%2\] means 2 tasks of a job array: name one, as 123_1"):
        require_job(Project(tmp_path), "123_[1,3%2]")


def test_job_ids_are_sorted_by_submit_time_then_by_number(tmp_path: Path) -> None:
    project = Project(tmp_path)
    put_job(project, "30", "2026-02-03T08:30:00+00:00")
    put_job(project, "20_10", "2026-02-03T09:00:00+01:00")  # the same moment as the next, 08:00 UTC
    put_job(project, "20_9", "2026-02-03T08:00:00+00:00")
    put_job(project, "local-20260201-000000-000", "2026-02-01T00:00:00+00:00")
    assert job_ids(project) == ["local-20260201-000000-000", "20_9", "20_10", "30"]


def test_what_is_no_job_is_left_out(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert job_ids(project) == []  # no folder jobs at all
    put_job(project, "5")
    for name in ("6", "123_[1,3%2]", "4%1", "notes", ".tmp"):
        (project.jobs / name).mkdir()
    (project.jobs / "123_[1,3%2]" / "job.json").write_text("{}")
    (project.jobs / "7").write_text("a file with the name of a job")
    (project.jobs / "8").symlink_to("nowhere")
    assert job_ids(project) == ["5"]


def test_a_job_with_a_broken_record_is_still_listed(tmp_path: Path) -> None:
    project = Project(tmp_path)
    broken = put_job(project, "6")
    broken.record.write_text('{"id": "6", ')
    os.utime(broken.record, (1_000_000, 1_000_000))
    put_job(project, "5")
    assert job_ids(project) == ["6", "5"]


def test_a_file_in_place_of_the_jobs_folder_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("")
    assert job_ids(Project(tmp_path)) == []


def test_an_unknown_id_names_the_nearest_and_the_newest(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with pytest.raises(UsageError, match=r"^no job 1971498 in .*; there are no jobs yet$"):
        require_job(project, "1971498")
    for hour, job_id in enumerate(("1971498", "2004711", "2004712", "2004713")):
        put_job(project, job_id, f"2026-02-03T0{hour}:00:00+01:00")
    with pytest.raises(UsageError, match=r"no job 1971489 .* did you mean 1971498\? the newest are") as caught:
        require_job(project, "1971489")
    assert str(caught.value).endswith("2004713, 2004712, 2004711")
    with pytest.raises(UsageError) as caught:
        require_job(project, "55")
    assert "did you mean" not in str(caught.value)
    assert require_job(project, "2004711") == project.job("2004711")


def test_part_of_a_local_id_is_enough_when_it_is_the_only_one(tmp_path: Path) -> None:
    project = Project(tmp_path)
    first = put_job(project, "local-20260203-091422-123")
    second = put_job(project, "local-20260204-101500-123")
    put_job(project, "2004711")
    assert require_job(project, "local-20260203") == first
    assert require_job(project, "101500-123") == second
    with pytest.raises(UsageError, match="fits 2 jobs: local-20260204-101500-123, local-20260203-091422-123"):
        require_job(project, "local-2026")
    with pytest.raises(UsageError, match="no job id"):
        require_job(project, "loc")


@pytest.mark.parametrize("text", ["123", "2004", "20047"])
def test_a_mistyped_slurm_id_never_reaches_another_job(tmp_path: Path, text: str) -> None:
    project = Project(tmp_path)
    put_job(project, "local-20260203-091422-123")
    put_job(project, "2004711")
    with pytest.raises(UsageError, match=f"no job {text}"):
        require_job(project, text)


def test_find_project_takes_the_nearest_folder_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TDMPC_LAB_ROOT", raising=False)
    inner = tmp_path / "outer" / "inner"
    (inner / "experiments").mkdir(parents=True)
    (tmp_path / "outer" / "experiments").mkdir()
    (inner / "a" / "b").mkdir(parents=True)
    assert find_project(inner / "a" / "b").root == inner
    assert find_project(inner / "..").root == tmp_path / "outer"
    monkeypatch.chdir(inner / "a")
    assert find_project().root == inner


def test_find_project_says_what_a_project_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TDMPC_LAB_ROOT", raising=False)
    (tmp_path / "experiments").write_text("a file")
    with pytest.raises(UsageError, match="a folder that holds a folder 'experiments'"):
        find_project(tmp_path)


def test_the_variable_overrides_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "experiments").mkdir()
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("TDMPC_LAB_ROOT", str(other))
    assert find_project(tmp_path).root == other
    monkeypatch.setenv("TDMPC_LAB_ROOT", str(tmp_path / "missing"))
    with pytest.raises(UsageError, match=r"TDMPC_LAB_ROOT=.*missing is no folder"):
        find_project(tmp_path)


def test_jobs_and_notes_load_no_heavy_library() -> None:
    code = (
        "import sys, pkgutil, importlib, tdmpc_lab.jobs, tdmpc_lab.notes\n"
        "for package in (tdmpc_lab.jobs, tdmpc_lab.notes):\n"
        "    for module in pkgutil.iter_modules(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "heavy = 'torch numpy mlflow pandas submitit gymnasium pydantic rich yaml'.split()\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_an_array_s_id_means_its_tasks(tmp_path: Path) -> None:
    project = Project(tmp_path)
    for job_id in ("7_10", "7_9", "7_0", "70_1", "8"):
        put_job(project, job_id)
    assert tasks_of(project, "7") == ["7_0", "7_9", "7_10"]
    assert tasks_of(project, "8") == tasks_of(project, "7_0") == tasks_of(project, "x") == []
    meant = {
        ("7",): ["7_0", "7_9", "7_10"],
        ("8", "7", "7_9"): ["8", "7_0", "7_9", "7_10"],
        ("7_[9-10%2]",): ["7_9", "7_10"],
        (): [],
    }
    for texts, ids in meant.items():
        assert [paths.id for paths in require_jobs(project, texts)] == ids
    for wrong in ("71", "9", "7_1", "7_[0-1]", "4%1", "7_[x]", "7_[5-2]"):
        with pytest.raises(UsageError):
            require_jobs(project, [wrong])
