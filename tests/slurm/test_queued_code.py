"""Which code a SLURM job runs when the project changes while it waits, and what is said when it is submitted twice."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from slurm_fixtures import Lab

IDENTITY = ("-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")


def git(root: Path, *words: str) -> None:
    """Run git as nobody in particular."""
    subprocess.run(["git", *IDENTITY, *words], cwd=root, check=True, capture_output=True, timeout=30)


def write_version(lab: Lab, version: str) -> None:
    """The user's environment prints its version, and that of a file beside it, wherever it is made."""
    module = lab.root / "moody_env.py"
    text = module.read_text().partition("\nprint(")[0]
    module.write_text(f"{text}\nprint('environment {version}', 'words', open('words.txt').read())\n")
    (lab.root / "words.txt").write_text(version)


@pytest.fixture
def repository(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """The project in a git repository with one commit."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    (lab.root / ".gitignore").write_text("jobs/\nmlruns/\n__pycache__/\n")
    write_version(lab, "old")
    git(lab.root, "init", "-q")
    git(lab.root, "add", ".")
    git(lab.root, "commit", "-qm", "one")
    return lab


def test_jobs_in_the_queue_run_the_code_of_their_submit(repository: Lab) -> None:
    lab = repository
    blocker = lab.slurm("sbatch", "--parsable", "--hold", f"--chdir={lab.root}", "--wrap=true").strip()
    waits = f"slurm.extra={{dependency: 'afterany:{blocker}'}}"
    frozen = lab.submit("experiments/moody.yaml", waits)
    assert lab.wait_for(frozen, "PENDING")["cause"]

    refused = lab.run("submit", "experiments/moody.yaml", "--cluster", "slurm", code=2)
    assert f"job {frozen}, with the same code: waiting" in refused.stderr
    live = lab.submit("experiments/moody.yaml", waits, "train.seed=2", "--no-snapshot")
    write_version(lab, "new")
    refused = lab.run("submit", "experiments/moody.yaml", "--cluster", "slurm", code=2)
    assert f"job {frozen}, with other code: waiting" in refused.stderr
    again = json.loads(lab.run("rerun", frozen, waits, "--cluster", "slurm", "--json").stdout)["jobs"][0]["id"]

    lab.slurm("scancel", blocker)
    for job in (frozen, live, again):
        lab.wait_for(job, "COMPLETED")
    assert "environment old words old" in lab.log(frozen)
    assert "environment old words old" in lab.log(again)
    assert "environment new words new" in lab.log(live)
    for job in (frozen, again):
        assert "environment new" not in lab.log(job)
    record = json.loads(lab.paths(again).record.read_text())
    assert record["rerun_of"] == frozen
    assert f"rerun of {frozen}" in lab.note(again)
    assert "not kept (--no-snapshot)" in lab.note(live)
