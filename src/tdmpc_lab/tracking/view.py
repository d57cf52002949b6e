"""The ready views of an experiment: MLflow's table of runs with the columns that tell its variants apart.

MLflow keeps a saved view as a tag of the experiment and lists it in the page's menu of views. Its own first columns
show no result, no parameter and no tag.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdmpc_lab.config.diff import NOT_COMPARED, NOT_IN_GROUP
from tdmpc_lab.text import shorten
from tdmpc_lab.tracking.points import safe_name
from tdmpc_lab.tracking.store import open_client, public_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

VARIANTS, RUNS = "tdmpc-lab", "tdmpc-lab-runs"
_NAMES = {VARIANTS: "variants, seeds averaged", RUNS: "runs, best first"}
_TAG = "mlflow.sharedViewState."

RESULTS = ("eval/win", "eval/return_mean")
"""Metrics that say how good an agent is, the one that counts more first."""
_TAGS = ("seed", "verdict", "variant")
_BY_VARIANT = {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "variant"}]}

_MOST_PARAMS = 12
_MOST_RUNS = 300  # of one experiment, newest first: their parameters may come over a network
_MOST_EXPERIMENTS = 100
_LONGEST_TAG = 5000  # of an experiment


def view_url(base: str, experiment_id: str, view: str = VARIANTS) -> str:
    """The page with a ready view; without its ending MLflow shows an overview for language models."""
    return (
        f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs?viewStateShareKey={view}&workflowType=machine_learning"
    )


def add_to_views(client: MlflowClient, experiment: Experiment, params: Iterable[str], results: Sequence[str]) -> None:
    """Have the views of the experiment show these params too, and these results unless they show some already.

    Never raises what MLflow says: a view is there for convenience and must not keep a job's values from being sent.
    """
    from mlflow.exceptions import MlflowException

    shown = shown_columns(experiment.tags.get(_TAG + VARIANTS))
    wanted = list(dict.fromkeys([*shown["params"], *map(safe_name, params)]))
    with contextlib.suppress(MlflowException):
        _set_views(client, experiment, wanted, shown["metrics"] or results)


def refresh_views(uri: str, root: Path) -> str | None:
    """Have the views of every experiment show what its runs differ in; returns what went wrong, in one line."""
    try:
        client = open_client(uri, root)
        for experiment in client.search_experiments(max_results=_MOST_EXPERIMENTS):
            _refresh(client, experiment)
    except Exception as error:  # noqa: BLE001 - whatever MLflow or a driver raises: the pages open all the same
        return f"MLflow at {public_uri(uri)}: {shorten(public_uri(f'{type(error).__name__}: {error}'), 300)}"
    return None


def _refresh(client: MlflowClient, experiment: Experiment) -> None:
    order = ["attributes.start_time DESC"]
    runs = client.search_runs([experiment.experiment_id], order_by=order, max_results=_MOST_RUNS)
    shown = shown_columns(experiment.tags.get(_TAG + VARIANTS))
    results = results_of({name for run in runs for name in run.data.metrics})
    if results:  # else nothing is known yet, or the runs are not ours
        _set_views(client, experiment, differing([run.data.params for run in runs], first=shown["params"]), results)


def _set_views(client: MlflowClient, experiment: Experiment, params: Sequence[str], results: Sequence[str]) -> None:
    for view in (VARIANTS, RUNS):
        text = view_text(view, params, results, created_ms=experiment.creation_time or 0)
        if experiment.tags.get(_TAG + view) != text:
            client.set_experiment_tag(experiment.experiment_id, _TAG + view, text)


def differing(params: Sequence[Mapping[str, str]], first: Sequence[str] = ()) -> list[str]:
    """The keys that not all of these runs have the same value for, those of `first` before the others.

    What a job is called, where it runs, how often it writes and its seed do not count.
    """
    keys = dict.fromkeys([*first, *(key for run in params for key in run)])
    return [key for key in keys if _compared(key) and len({run.get(key) for run in params}) > 1]


def _compared(key: str) -> bool:
    return key not in NOT_IN_GROUP and key.partition(".")[0] not in NOT_COMPARED


def results_of(metrics: Collection[str]) -> list[str]:
    """The metrics that say how good an agent is, of those that there are: the games won, then those won against every
    single opponent, then the return."""
    first, last = RESULTS
    # `eval/win_low` is a bound; of an opponent there are games lost, too.
    opponents = [name for name in metrics if name.startswith(f"{first}_") and name.replace("win", "loss", 1) in metrics]
    return [name for name in (first, *sorted(opponents), last) if name in metrics]


def view_text(view: str, params: Sequence[str], results: Sequence[str], *, created_ms: int) -> str:
    """The tag of a view whose columns are these results and params, seed, verdict and variant; the best run first.

    Its values stand in it twice: MLflow since it has saved views reads `state`, an older one the values themselves.
    """
    for count in range(min(len(params), _MOST_PARAMS), -1, -1):
        state = _state(params[:count], results, grouped=view == VARIANTS)
        named = {"name": _NAMES[view], "createdAt": created_ms, "state": _json(state)}
        text = _json({**named, **state})
        if len(text) <= _LONGEST_TAG:
            break
    return text


def _state(params: Sequence[str], results: Sequence[str], *, grouped: bool) -> dict[str, Any]:
    columns = {"metrics": results, "params": params, "tags": _TAGS, "attributes": ("Duration",)}
    return {
        "searchFilter": "",
        "orderByKey": f"metrics.`{results[0]}`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [f"{kind}.`{name}`" for kind, names in columns.items() for name in names],
        "runsHiddenMode": "FIRST_20_RUNS",
        "groupBy": _BY_VARIANT if grouped else None,
    }


def shown_columns(text: str | None) -> dict[str, list[str]]:
    """The params and the metrics that a view shows; none of one that can't be read."""
    found: dict[str, list[str]] = {"params": [], "metrics": []}
    for kind, name in _columns(text):
        if kind in found:
            found[kind].append(name)
    return found


def _columns(text: str | None) -> Iterator[tuple[str, str]]:
    try:
        columns = json.loads(text or "{}")["selectedColumns"]
    except (ValueError, TypeError, KeyError):
        return
    for column in columns if isinstance(columns, list) else []:
        kind, _, name = str(column).partition(".")
        yield kind, name.strip("`")


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
