"""`doctor` finds what is broken, says how to mend it, and its exit code tells whose fault it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tdmpc_lab.app.health import installation as doctor
from tdmpc_lab.app.health.installation import examine
from tdmpc_lab.cli.main import main
from tdmpc_lab.errors import ExternalError, Finding
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.launch import commands
from tdmpc_lab.launch.nodes import ask_nodes


@pytest.fixture
def alone(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Project:
    """A machine without SLURM and git."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return Project(project)


def by_name(project: Project) -> dict[str, Finding]:
    return {point.check: point for point in examine(project)}


def test_a_machine_without_slurm_is_fine(alone: Project, capsys: pytest.CaptureFixture[str]) -> None:
    found = by_name(alone)
    assert found["python"].level == found["packages"].level == found["torch"].level == "ok"
    assert "mlflow " in found["packages"].what
    assert " threads, " in found["torch"].what
    assert found["slurm"].what.startswith("not on this machine")
    assert found["git"].level == "warning"
    assert main(["doctor"]) == 0
    assert "→ install it" in capsys.readouterr().out
    assert sorted(path.name for path in alone.root.iterdir()) == ["experiments"]


def test_slurm_that_does_not_answer_exits_with_3(
    alone: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo"):
        script = tmp_path / "bin" / name
        ping = "echo 'Slurmctld(primary) at head is DOWN'; " if name == "scontrol" else ""
        said = "slurm_load_partitions: Unable to contact slurm controller"
        script.write_text(f"#!/bin/sh\n{ping}echo '{said}' >&2; exit 1\n")
        script.chmod(0o755)
    assert main(["doctor", "--json"]) == 3
    points = {point["name"]: point for point in json.loads(capsys.readouterr().out)}
    assert points["slurm"]["level"] == "error"
    assert "Unable to contact" in points["slurm"]["found"]
    assert points["slurm"]["fix"]
    (tmp_path / "bin" / "sinfo").unlink()
    assert by_name(alone)["slurm"].what == "commands missing: sinfo"


@pytest.mark.parametrize(
    ("named", "found"),
    [
        (None, "SLURM_CONF is not set, and "),
        ("/nowhere/slurm.conf", "SLURM_CONF names '/nowhere/slurm.conf'"),
    ],
)
def test_slurm_s_commands_without_a_configuration(
    named: str | None, found: str, alone: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence that says so, with what to do, instead of SLURM's own lines and to try again later."""
    monkeypatch.setattr(commands, "_CONFIGURATION", "/nowhere/slurm.conf")
    if named is not None:
        monkeypatch.setenv("SLURM_CONF", named)
    said = "sinfo: error: _establish_config_source: failed to fetch config\nfatal: no configuration source"
    for name in ("sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo"):
        script = tmp_path / "bin" / name
        script.write_text(f"#!/bin/sh\necho '{said}' >&2; exit 1\n")
        script.chmod(0o755)
    point = by_name(alone)["slurm"]
    assert (point.level, point.outside) == ("error", True)
    assert found in point.what
    assert "\n" not in point.what
    assert "_establish" not in point.what + point.fix
    assert "again later" not in point.what + point.fix
    assert "SLURM_CONF" in point.fix
    with pytest.raises(ExternalError, match="no configuration of a cluster"):
        ask_nodes()


def test_a_store_that_mlflow_does_not_know(alone: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "127.0.0.1:5000")
    point = by_name(alone)["mlflow"]
    assert (point.level, point.outside) == ("error", True)
    assert "did you mean http://127.0.0.1:5000?" in point.what


def test_what_is_broken_exits_with_1(
    alone: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "NEEDED", ("torch", "no-such-package"))
    (alone.root / "clusters.yaml").write_text("tcml: {partiton: day}\n")
    (alone.root / "jobs").write_text("no folder")
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "missing: no-such-package" in out
    assert "tcml.partiton: unknown key (did you mean 'partition'?)" in out
    assert "jobs is no folder" in out


def test_an_editor_s_schema_that_is_missing(alone: Project) -> None:
    (alone.experiments / "a.yaml").write_text("# yaml-language-server: $schema=../spec.schema.json\nenv: {id: x}\n")
    found = by_name(alone)["editor"]
    assert (found.level, found.fix) == ("warning", "tdmpc-lab schema > spec.schema.json")
    (alone.root / "spec.schema.json").touch()
    assert by_name(alone)["editor"].level == "ok"
