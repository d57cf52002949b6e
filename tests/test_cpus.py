"""How many CPUs a job takes for its own."""

from __future__ import annotations

import pytest

from tdmpc_lab.cpus import SHARE_VARIABLE, SLURM_VARIABLES, available_cpus


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tdmpc_lab.cpus.cpus_here", lambda: 8)
    for variable in (SHARE_VARIABLE, *SLURM_VARIABLES):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 8),
        ({SHARE_VARIABLE: "2"}, 2),
        ({SHARE_VARIABLE: "16"}, 8),
        ({SHARE_VARIABLE: "0"}, 8),
        ({SHARE_VARIABLE: "many"}, 8),
        ({"SLURM_CPUS_PER_TASK": "4", "SLURM_CPUS_ON_NODE": "6"}, 4),
        ({"SLURM_CPUS_ON_NODE": "6"}, 6),
        ({SHARE_VARIABLE: "3", "SLURM_CPUS_PER_TASK": "4"}, 3),
    ],
)
def test_a_job_takes_no_more_than_its_own(environment, expected, monkeypatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert available_cpus() == expected
