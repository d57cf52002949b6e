"""One job on a real cluster, from submit to its end, well or badly."""

from __future__ import annotations

from slurm_fixtures import Lab


def test_a_job_completes(lab: Lab) -> None:
    """Folder, note, metrics, MLflow run and status say the same."""
    job = lab.submit("experiments/quick.yaml", "train.seed=7", "slurm.gpus=2080ti:1")
    assert job.isdecimal()
    status = lab.wait_for(job, "COMPLETED")
    assert (status["step"], status["attempt"], status["cause"]) == (80, 1, None)
    assert [row["step"] for row in lab.metrics(job) if "updates" in row] == [20, 40, 60, 80]
