from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest

from tdmpc_lab.launch.local import run_debug
from tdmpc_lab.launch.process import clean_environment


def _divide(number: int) -> float:
    assert os.environ["SUBMITIT_EXECUTOR"] == "debug"
    assert "SLURM_JOB_ID" not in os.environ
    return 1 / number


def test_the_result_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    before = dict(os.environ)
    assert run_debug(tmp_path, _divide, 2) == 0.5
    assert dict(os.environ) == before


def test_the_error_comes_out_as_it_was_raised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pdb.post_mortem", lambda *_: pytest.fail("stopped at a prompt"))
    before = dict(os.environ)
    with pytest.raises(ZeroDivisionError) as caught:
        run_debug(tmp_path, _divide, 0)
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "_divide"
    assert dict(os.environ) == before
    assert capsys.readouterr().out == ""


def test_what_a_scheduler_left_is_taken_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    leaks = {"SLURM_CPU_BIND": "1", "SBATCH_QOS": "x", "SUBMITIT_FOLDER": "/x", "SRUN_CPUS_PER_TASK": "4"}
    leaks |= {"SQUEUE_PARTITION": "week", "SACCT_FORMAT": "x", "SCANCEL_STATE": "PENDING", "SLURM_CLUSTERS": "other"}
    kept = {"HOME": "/h", "SLURM_CONF": "/etc/slurm.conf", "SLURM_CONF_SERVER": "head", "PYTHONPATH": "src:/abs"}
    assert clean_environment({**leaks, **kept}) == {**kept, "PYTHONPATH": f"{tmp_path}/src:/abs"}
