"""What `bench` says of the machine's ceiling: measured beside the rest, and never less than what was reached."""

from __future__ import annotations

import json
from collections import Counter
from itertools import groupby
from pathlib import Path

import pytest
from app_fixtures import write_specs

from tdmpc_lab.agent import Agent
from tdmpc_lab.agent import bench as agent_bench
from tdmpc_lab.cli.main import main

WORDS = ["bench", "experiments/quick.yaml", "--repeats", "4", "--no-reference"]


@pytest.fixture
def lab(project: Path) -> Path:
    write_specs(project)
    return project


def test_large_products_are_timed_by_turns_with_plans_and_updates(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for owner, name in ((agent_bench.Ceiling, "measure"), (Agent, "act"), (Agent, "update")):
        real = getattr(owner, name)

        def counted(*words: object, real: object = real, name: str = name, **named: object) -> object:
            calls.append(name)
            return real(*words, **named)  # type: ignore[operator]

        monkeypatch.setattr(owner, name, counted)
    assert main(WORDS) == 0
    assert Counter(calls) == {"measure": 4, "act": 8, "update": 8}
    assert [name for name, _ in groupby(calls)].count("measure") == 4


def test_a_share_above_one_is_a_measurement_that_failed(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(agent_bench.Ceiling, "gflops", property(lambda _: 1e-9))
    assert main(WORDS) == 0
    text = capsys.readouterr().out
    assert "% of the ceiling" not in text
    assert text.count("share of the ceiling not measured, see below") == 2
    assert "the ceiling was not measured: plans or updates were faster than large products beside them" in text
    assert "plan for 1 environment: " in text
    assert main([*WORDS, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["plan_share_of_ceiling"], result["update_share_of_ceiling"]) == (None, None)
