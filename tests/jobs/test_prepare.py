from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tdmpc_lab.errors import RecordError, UsageError
from tdmpc_lab.jobs import record as prepare
from tdmpc_lab.jobs.find import job_ids
from tdmpc_lab.jobs.ids import is_local_id
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.record import JobRecord, prepare_job, read_record


def make_record(job_id: str) -> JobRecord:
    return JobRecord(
        id=job_id,
        experiment="quickstart",
        group="0123456789",
        seed=1,
        cluster="local",
        spec_file="experiments/quickstart.yaml",
        submitted_at="2026-02-03T09:14:22+01:00",
        steps_total=5000,
    )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def usual_umask() -> Iterator[None]:
    old = os.umask(0o022)
    yield
    os.umask(old)


@pytest.mark.usefixtures("usual_umask")
def test_a_local_job_gets_an_id_and_its_files(project: Project) -> None:
    paths = prepare_job(project, None, "name: quickstart\r\n", "resolved: ü\n", make_record)
    assert is_local_id(paths.id)
    assert job_ids(project) == [paths.id]
    assert paths.spec.read_bytes() == b"name: quickstart\r\n"
    assert paths.resolved.read_text(encoding="utf-8") == "resolved: ü\n"
    assert read_record(paths) == make_record(paths.id)
    assert stat.S_IMODE(paths.folder.stat().st_mode) == 0o750
    assert list(paths.checkpoints.iterdir()) == []


def test_what_was_begun_for_a_record_goes_with_it_and_the_schedulers_log_stays(project: Project) -> None:
    """Copies of agents, of an old job's rows and checkpoints: all that is put into the folder before the record."""
    paths = project.job("1971498")
    paths.folder.mkdir(parents=True)
    paths.log_out.write_text("opened by the scheduler")

    def make(job_id: str) -> JobRecord:
        paths.metrics.write_text("{}\n")
        for place in (paths.start, paths.opponents / "a.pt", paths.pool / "b.pt", paths.checkpoints / "c.pt"):
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(b"")
        raise RecordError("the disk is full")

    with pytest.raises(RecordError, match="the disk is full"):
        prepare_job(project, "1971498", "a", "b", make)
    assert [path.name for path in paths.folder.iterdir()] == ["log.out"]


def test_a_given_id_is_taken_and_only_once(project: Project) -> None:
    paths = prepare_job(project, "1971498_3", "a", "b", make_record)
    assert paths.id == "1971498_3"
    with pytest.raises(RecordError, match="1971498_3 was made before; nothing was changed"):
        prepare_job(project, "1971498_3", "x", "y", make_record)
    assert paths.spec.read_text() == "a"
    with pytest.raises(UsageError, match="no job id"):
        prepare_job(project, "../x", "a", "b", make_record)


def test_nobody_sees_a_job_that_is_being_made(project: Project) -> None:
    def look(job_id: str) -> JobRecord:
        assert project.job(job_id).resolved.exists()
        assert job_ids(project) == []
        return make_record(job_id)

    prepare_job(project, "7", "a", "b", look)
    assert job_ids(project) == ["7"]


def fail(job_id: str) -> JobRecord:
    raise KeyboardInterrupt


def wrong(job_id: str) -> JobRecord:
    return make_record("99")


@pytest.mark.parametrize(("maker", "error"), [(fail, KeyboardInterrupt), (wrong, RecordError)])
@pytest.mark.parametrize("job_id", [None, "7"])
def test_an_exception_removes_what_was_made(
    project: Project, job_id: str | None, maker: Callable[[str], JobRecord], error: type[BaseException]
) -> None:
    with pytest.raises(error):
        prepare_job(project, job_id, "a", "b", maker)
    assert list(project.jobs.iterdir()) == []


def test_a_failing_disk_removes_what_was_made(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    real = prepare.write_atomic

    def full(path: Path, data: str) -> None:
        if path.name == "resolved.yaml":
            raise OSError(28, "No space left on device")
        real(path, data)

    monkeypatch.setattr(prepare, "write_atomic", full)
    with pytest.raises(OSError, match="No space left"):
        prepare_job(project, None, "a", "b", make_record)
    assert list(project.jobs.iterdir()) == []


def test_what_the_scheduler_put_there_stays(project: Project) -> None:
    log = project.job("7").log_out
    log.parent.mkdir(parents=True)
    log.write_text("slurmstepd: …")
    with pytest.raises(KeyboardInterrupt):
        prepare_job(project, "7", "a", "b", fail)
    assert [path.name for path in log.parent.iterdir()] == ["log.out"]
    prepare_job(project, "7", "a", "b", make_record)
    assert job_ids(project) == ["7"]
    assert log.read_text() == "slurmstepd: …"
