"""`status` on a real cluster: other jobs in the queue, the time limit, a controller that goes away."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable

import pytest
from slurm_fixtures import Lab, Sim

from tdmpc_lab.app.queue.status import job_views


@pytest.mark.timeout(300)
def test_the_annotated_queue(start_cluster: Callable[..., Sim], make_lab: Callable[..., Lab]) -> None:
    sim = start_cluster(accounting=False)
    lab = make_lab(sim)
    slow = ["env.options={slow: 0.02}", "train.steps=1_000_000", "slurm.partition=day"]
    job = lab.submit("experiments/moody.yaml", "about=with moods, and slow", *slow)
    wrap = ["--partition=week", f"--chdir={lab.root}", "--output=/dev/null", "--wrap=sleep 300"]
    other = lab.slurm("sbatch", "--parsable", "--job-name=hockey_s", *wrap).strip()
    array = lab.slurm("sbatch", "--parsable", "--hold", "--array=0-40%2", *wrap).strip()

    def limited() -> bool:
        (view,) = job_views(lab.project, [job])
        return view.done_at_limit is not None

    lab.until(limited, 150, lambda: f"{lab.status(job)}\n{lab.log(job)}")
    text = lab.run("status").stdout
    assert re.search(
        rf"^{job} +day +moody +\S+ +R +[0-9:]+ +1 +tcml-node\d +-> with moods, and slow$", text, re.MULTILINE
    )
    assert re.search(r"reaches \d+ % before the limit in [0-9]:[0-9]{2} \([0-9:-]+ to go\)", text)
    assert re.search(r"heartbeat 0:0\d ago", text)
    assert re.search(rf"^{other} +week +hockey_s .* -> \(not of this project\)$", text, re.MULTILINE)
    assert re.search(
        rf"^{array}_\[0-40\] +week .* PD .*\(JobHeldUser\) +-> \(not of this project\)$", text, re.MULTILINE
    )
    (seen,) = json.loads(lab.run("status", "--json").stdout)
    assert 0 < seen["limit_left_s"] <= 600
    assert 0 < seen["done_at_limit"] < 0.2
    assert seen["slurm"]["limit"] == "10:00"
    everything = json.loads(lab.run("status", "--json", "--foreign").stdout)
    assert [(one["id"], one["foreign"]) for one in everything] == [
        (job, False), (other, True), (f"{array}_[0-40]", True),
    ]  # fmt: skip
    assert lab.run("status", "--partition", "week", "--md").stdout.count("(not of this project)") == 2
    assert "reaches" in lab.run("show", job).stdout
    assert json.loads(lab.run("gc", "--yes", "--json").stdout)["removed"] == []  # it runs: all of it stays
    watch_while_the_controller_goes(lab, sim, job)


def watch_while_the_controller_goes(lab: Lab, sim: Sim, job: str) -> None:
    """`--watch` continues with what was last known, and Ctrl-C ends it without an error."""
    out = lab.root / "watch.out"
    with out.open("w") as file:
        watching = subprocess.Popen(
            lab.command("status", "--watch", "1", job),
            cwd=lab.root,
            env=lab.environ(),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.PIPE,
            # a shell has its background processes, and all they start, ignore Ctrl-C
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one thread here
        )
        try:
            lab.until(lambda: "reaches" in out.read_text(), 60)
            sim("stop-controller")
            lab.until(lambda: "the scheduler can't be reached" in out.read_text(), 90, out.read_text)
            assert watching.poll() is None
            watching.send_signal(signal.SIGINT)
            _, err = watching.communicate(timeout=60)
        finally:
            watching.kill()
    assert (watching.returncode, err) == (0, b"")
    sim("start-controller")
