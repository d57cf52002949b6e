"""The agent in `models/hockey`, as from a fresh clone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tdmpc_lab.cli.main import main
from tdmpc_lab.config.loader import load_spec
from tdmpc_lab.config.serialize import to_dict

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "models" / "hockey"


def test_it_beats_both_bots(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """By far: of 500 games each it lost none and three."""
    monkeypatch.chdir(project)
    call = ["eval", str(MODEL), "--opponent", "weak", "strong", "--episodes", "20", "--device", "cpu", "--json"]
    assert main(call) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["opponent"] for row in rows] == ["weak", "strong"]
    assert all(row["win"] >= 0.8 for row in rows)


def test_it_is_the_agent_of_its_spec() -> None:
    """Everything but what it is called and said to be for, and what the spec has got since it was trained."""
    spec, made_of = (
        to_dict(load_spec(path).spec) for path in (ROOT / "experiments" / "hockey_winner.yaml", MODEL / "spec.yaml")
    )
    for values in (spec, made_of):
        for key in ("about", "why"):
            values.pop(key)
    assert made_of["agent"]["entropy"] == "gaussian"
    assert made_of["agent"]["encoder_norm"] is False
    made_of["agent"] |= {"entropy": "squashed", "encoder_norm": True}
    assert made_of == spec
    assert sum(path.stat().st_size for path in MODEL.iterdir()) < 20e6
