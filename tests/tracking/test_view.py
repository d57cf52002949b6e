"""The ready views: their columns, and that they follow what the runs of an experiment differ in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tracking_fixtures import info, make_job, mirror, write_rows

from tdmpc_lab.tracking.store import open_client, store_uri
from tdmpc_lab.tracking.view import (
    RUNS,
    VARIANTS,
    differing,
    refresh_views,
    results_of,
    shown_columns,
    view_text,
    view_url,
)

TAG = "mlflow.sharedViewState."


def test_the_columns_of_a_view() -> None:
    text = view_text(VARIANTS, ["agent.horizon"], ["eval/win", "eval/return_mean"], created_ms=5)
    view = json.loads(text)
    state = json.loads(view["state"])
    assert (view["createdAt"], view["name"]) == (5, "variants, seeds averaged")
    assert state["selectedColumns"] == [
        "metrics.`eval/win`",
        "metrics.`eval/return_mean`",
        "params.`agent.horizon`",
        "tags.`seed`",
        "tags.`verdict`",
        "tags.`variant`",
        "attributes.`Duration`",
    ]
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`eval/win`", False)
    assert state["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "variant"}]
    assert {key: view[key] for key in state} == state
    assert json.loads(view_text(RUNS, [], ["eval/win"], created_ms=5))["groupBy"] is None
    assert shown_columns(text) == {"params": ["agent.horizon"], "metrics": ["eval/win", "eval/return_mean"]}


def test_many_and_long_params_are_left_out() -> None:
    def shown(params: list[str]) -> int:
        text = view_text(RUNS, params, ["eval/win"], created_ms=5)
        assert len(text) <= 5000  # MLflow takes no more
        return len(shown_columns(text)["params"])

    assert shown([f"agent.key{i}" for i in range(40)]) == 12
    assert 2 <= shown([f"env.options.{'x' * 230}{i}" for i in range(40)]) < 12


@pytest.mark.parametrize(
    "text", [None, "", "deflate;eJx", "[]", "7", '{"selectedColumns": 3}', '{"selectedColumns": [1]}']
)
def test_a_view_that_cant_be_read_shows_nothing(text: str | None) -> None:
    assert shown_columns(text) == {"params": [], "metrics": []}


def test_what_differs() -> None:
    one = {
        "name": "a",
        "agent.horizon": "3",
        "train.seed": "1",
        "slurm.time": "1",
        "reward.scale": "2",
        "eval.every": "5",
    }
    two = {"name": "b", "agent.horizon": "4", "train.seed": "2", "slurm.time": "2", "reward.scale": "1", "eval": "null"}
    assert differing([one, two]) == ["agent.horizon", "reward.scale", "eval.every", "eval"]
    assert differing([one, two], first=["reward.scale", "agent.lr"])[:2] == ["reward.scale", "agent.horizon"]
    assert differing([one]) == differing([]) == []


def test_what_counts() -> None:
    games = {"eval/win", "eval/win_low", "eval/win_weak", "eval/loss_weak", "eval/win_starting", "eval/return_mean"}
    assert results_of(games) == ["eval/win", "eval/win_weak", "eval/return_mean"]
    assert results_of({"eval/return_mean", "loss/total"}) == ["eval/return_mean"]
    assert results_of({"train/return"}) == []


def test_the_address_says_which_kind_of_page() -> None:
    assert view_url("http://127.0.0.1:5001/", "3") == (
        "http://127.0.0.1:5001/#/experiments/3/runs?viewStateShareKey=tdmpc-lab&workflowType=machine_learning"
    )


def test_views_grow_with_the_runs_and_are_made_exact(tmp_path: Path) -> None:
    """Jobs add what tells them apart; `ui` leaves only what runs differ in, with the results that there are."""
    uri = store_uri(tmp_path)
    for number, telling in enumerate((("agent.horizon",), ("agent.horizon", "agent.lr", "reward.scale"))):
        paths = make_job(tmp_path, f"local-20260203-091422-00{number}")
        params = {"agent.horizon": 3 + number, "agent.lr": 1e-3, "agent.rho": 0.5 - number}
        told = replace(info(paths.id, params=params), telling=telling, results=("eval/return_mean",))
        write_rows(paths, range(1, 3))
        assert mirror(paths, tmp_path, info=told).start().close("FINISHED", timeout_s=60).problem is None
    assert columns(uri, tmp_path) == (["agent.horizon", "agent.lr", "reward.scale"], ["eval/return_mean"])
    assert refresh_views(uri, tmp_path) is None
    assert columns(uri, tmp_path)[0] == ["agent.horizon", "agent.lr", "reward.scale"]  # no result yet: left alone
    client = open_client(uri, tmp_path)
    (experiment,) = client.search_experiments(filter_string="name = 'quickstart'")
    for run in client.search_runs([experiment.experiment_id]):
        client.log_metric(run.info.run_id, "eval/win", 0.5)
    assert refresh_views(uri, tmp_path) is None
    assert columns(uri, tmp_path) == (["agent.horizon", "agent.rho"], ["eval/win"])


def columns(uri: str, root: Path) -> tuple[list[str], list[str]]:
    experiment = open_client(uri, root).get_experiment_by_name("quickstart")
    assert experiment is not None
    shown = shown_columns(experiment.tags[TAG + VARIANTS])
    assert shown == shown_columns(experiment.tags[TAG + RUNS])
    return shown["params"], shown["metrics"]


def test_a_store_that_is_away_is_told(tmp_path: Path) -> None:
    problem = refresh_views("http://me:secret@127.0.0.1:9", tmp_path)
    assert problem is not None
    assert problem.startswith("MLflow at http://***@127.0.0.1:9: ")
    assert "secret" not in problem
