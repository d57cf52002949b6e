"""Containers, dependencies, profiles, options and the preflight on a real cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from slurm_fixtures import Lab

from tdmpc_lab.launch.sbatch import attempt_start
from tdmpc_lab.launch.slurm import sbatch_takes

# Does what the real one does here: runs the command, with the image and the folders on record.
APPTAINER = """\
#!/bin/sh
echo "$@" >> "$0.calls"
test "$1" = exec && shift
while :; do
    case "$1" in
        --nv) shift ;;
        --bind) shift 2 ;;
        *) break ;;
    esac
done
test -f "$1" || { echo "no image $1" >&2; exit 255; }
shift
exec "$@"
"""


def with_apptainer(lab: Lab) -> tuple[Path, dict[str, str]]:
    folder = lab.root / "bin"
    folder.mkdir()
    runtime = folder / "apptainer"
    runtime.write_text(APPTAINER)
    runtime.chmod(0o755)
    (lab.root / "lab.sif").touch()
    python = folder / "python"  # this one's path may have a space in it
    python.write_text(f"#!/bin/sh\nexec '{sys.executable}' \"$@\"\n")
    python.chmod(0o755)
    return runtime, {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def test_a_job_runs_in_its_container_with_all_that_its_profile_says(lab: Lab) -> None:
    runtime, environ = with_apptainer(lab)
    (lab.root / "clusters.yaml").write_text(
        "sim:\n"
        "  partition: test\n"
        "  cpus: 2\n"
        '  exclude: "tcml-node1"\n'
        "  mail: {types: [END, FAIL], user: stud421}\n"
        f"  container: {{image: lab.sif, bind: ['{lab.root}:/data'], python: {lab.root}/bin/python}}\n"
        '  setup: ["env > setup.env"]\n'
        "  extra: {nice: 7}\n"
    )
    words = ["experiments/quick.yaml", "--profile", "sim", "--cluster", "slurm", "--skip-preflight", "--json"]
    done = lab.run("submit", *words, **environ, SLURM_CPU_BIND="leaked", OMP_NUM_THREADS="99")
    job = json.loads(done.stdout)["jobs"][0]["id"]
    shown = lab.slurm("scontrol", "show", "job", job)
    assert lab.wait_for(job, "COMPLETED")["step"] == 80
    for text in ("NumCPUs=1", "ExcNodeList=tcml-node1", "Nice=7", "MailUser=stud421", "MailType=END,FAIL"):
        assert text in shown
    (call,) = Path(f"{runtime}.calls").read_text().splitlines()
    assert call.startswith(
        f"exec --nv --bind {lab.root}:/data --bind {lab.root} {lab.root}/lab.sif {lab.root}/bin/python "
    )
    environment = (lab.root / "setup.env").read_text().splitlines()
    assert "OMP_NUM_THREADS=1" in environment
    begun = attempt_start(dict(line.split("=", 1) for line in environment if "=" in line))
    assert begun is not None and abs((datetime.now(UTC) - begun).total_seconds()) < 600
    assert "SLURM_CPU_BIND=leaked" not in environment
    resources = json.loads((lab.project.job(job).record).read_text())["resources"]
    assert (resources["profile"], resources["memory"]) == ("sim", "500M")  # the spec's own comes first


def test_options_that_the_help_hides_and_a_job_that_is_held(lab: Lab) -> None:
    assert sbatch_takes("wait-all-nodes", 1)  # not in its help
    assert not sbatch_takes("wait-all-nodes", 7) and not sbatch_takes("no-such-option", True)
    slow = ["env.options={slow: 0.05}", "train.steps=1_000_000"]
    job = lab.submit(
        "experiments/moody.yaml", *slow, "slurm.extra.wait-all-nodes=1", "slurm.extra.kill-on-invalid-dep=yes"
    )
    assert "KillOInInvalidDependent=Yes" in lab.slurm("scontrol", "show", "job", job)
    lab.until(lambda: "RUNNING" in lab.slurm("squeue", "--noheader", "--format=%T", "--jobs", job))
    lab.slurm("scontrol", "requeuehold", job)
    lab.wait_for(job, "PENDING")
    shown = lab.run("status", job).stdout
    assert f"scontrol release {job} (" in shown and "expects to start" not in shown
    assert lab.status(job)["slurm"]["begin"] is None


def test_a_job_waits_for_another(lab: Lab) -> None:
    first = lab.submit("experiments/moody.yaml", "env.options={slow: 0.05}", "slurm.gpus=null")
    second = lab.submit("experiments/quick.yaml", "--after", first)
    assert f"Dependency=afterok:{first}" in lab.slurm("scontrol", "show", "job", second)
    assert lab.wait_for(second, "PENDING")["cause"]
    lab.wait_for(second, "COMPLETED")
    assert lab.status(first)["state"] == "COMPLETED"
    third = lab.run(
        "submit", "experiments/quick.yaml", "train.seed=3", "--after", first, "--cluster", "slurm", "--dry-run"
    )
    assert f"{first} is over already (COMPLETED): nothing to wait for" in third.stderr
    assert "--dependency" not in third.stdout
    refused = lab.run(
        "submit", "experiments/quick.yaml", "train.seed=4", "--after", "999999", "--cluster", "slurm", code=2
    )
    assert "no job 999999" in refused.stderr


def test_what_the_cluster_does_not_have_is_found_before_anything_is_written(lab: Lab) -> None:
    before = sorted(lab.root.iterdir())
    queue = lab.slurm("squeue", "--noheader", "--me", "--name=unheard_of")
    wrong = ["slurm.partition=dya", "slurm.container={image: lab.sif}"]
    refused = lab.run("submit", "experiments/quick.yaml", "name=unheard_of", *wrong, "--cluster", "slurm", code=2)
    assert "error: 2 problems; nothing was done" in refused.stderr
    assert "there is no partition 'dya'" in refused.stderr
    assert "did you mean 'day'?" in refused.stderr
    assert f"slurm.container.image: no image {lab.root}/lab.sif" in refused.stderr
    wrong = ["slurm.partition=test", "slurm.time=16:00:00", "slurm.gpus=A40000:1", "train.device=auto"]
    refused = lab.run("submit", "experiments/quick.yaml", "name=unheard_of", *wrong, "--cluster", "slurm", code=2)
    assert "partition test has a limit of 00:15:00" in refused.stderr
    assert "GPU of type 'A40000': they have 2080ti, A4000 (did you mean 'A4000'?" in refused.stderr
    assert sorted(lab.root.iterdir()) == before
    assert lab.slurm("squeue", "--noheader", "--me", "--name=unheard_of") == queue == ""


def test_check_and_doctor_ask_the_cluster(lab: Lab) -> None:
    report = json.loads(lab.run("check", "experiments/quick.yaml", "--cluster", "slurm", "--json").stdout)
    assert report["device"] == "cpu"
    assert [(f["level"], f["check"]) for f in report["findings"]] == [
        ("warning", "memory")
    ]  # these jobs ask for little
    points = {p["name"]: p for p in json.loads(lab.run("doctor", "--json").stdout)}
    assert "partitions: test, day, week, month" in points["slurm"]["found"]
    assert "GPUs: 2080ti, A4000" in points["slurm"]["found"]


def test_without_the_checks_nothing_heavy_is_loaded(lab: Lab) -> None:
    words = ["submit", "experiments/quick.yaml", "slurm.extra={begin: now+1hour}", "--cluster", "slurm"]
    code = (
        "import sys; from tdmpc_lab.cli.main import main; assert main(sys.argv[1:]) == 0; "
        "print([m for m in ('torch', 'mlflow', 'pandas', 'gymnasium') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, *words, "--skip-preflight"]
    done = subprocess.run(command, cwd=lab.root, env=lab.environ(), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
