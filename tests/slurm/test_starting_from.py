"""A sweep that begins with another agent, on a real cluster."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from slurm_fixtures import Lab

from tdmpc_lab.cli.main import main
from tdmpc_lab.config.loader import load_spec
from tdmpc_lab.config.serialize import dump_yaml
from tdmpc_lab.launch import slurm
from tdmpc_lab.training.build import build_agent
from tdmpc_lab.training.load import header, save_copy


def test_an_array_begins_with_an_agent_that_is_gone_by_then(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lab.root)
    spec = load_spec("experiments/quick.yaml").spec
    agent = build_agent(spec, 3, 1, 20)
    save_copy(Path("models/piece/agent.pt"), agent, header(dump_yaml(spec), 3, 1, 20), 240_000, training=True)
    copies: list[bool] = []
    release = slurm.release

    def release_last(array: str) -> None:
        copies.extend(lab.paths(f"{array}_{task}").start.is_file() for task in range(2))
        shutil.rmtree("models/piece")
        release(array)

    monkeypatch.setattr(slurm, "release", release_last)
    words = ["experiments/quick.yaml", "train.start_from=models/piece", "sweep.train.seed=[1, 2]"]
    assert main(["submit", *words, "--cluster", "slurm", "--skip-preflight"]) == 0
    assert copies == [True, True]
    ids = sorted(job["id"] for job in json.loads(lab.run("status", "--json").stdout))
    assert "- starts from models/piece at step 240,000\n" in lab.run("note", ids[0].partition("_")[0]).stdout
    for job_id in ids:
        lab.wait_for(job_id, "COMPLETED")
        (told,) = (event for event in lab.events(job_id) if event["event"] == "start_from")
        assert (told["agent"], told["step"], told["optimizers"]) == ("models/piece", 240_000, True)
        assert "- starts from models/piece at step 240,000\n" in lab.note(job_id)
