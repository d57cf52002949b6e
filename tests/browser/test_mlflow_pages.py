"""The jobs of a sweep as they are seen in MLflow: the ready views, two runs compared, their curves, the address."""

from __future__ import annotations

import math
import os
import re
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from mlflow_pages import compare, differences_only, open_curves, open_view, served
from tdmpc_lab.app.joblog.edit import judge
from tdmpc_lab.app.mlflow.sync import sync
from tdmpc_lab.config.diff import config_hash, group_hash
from tdmpc_lab.config.loader import load_spec
from tdmpc_lab.config.serialize import dump_yaml
from tdmpc_lab.files import append_jsonl
from tdmpc_lab.jobs.events import EventLog
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.record import JobRecord, write_record
from tdmpc_lab.jobs.variants import PALETTE
from tdmpc_lab.tracking.run import JOB_TAG
from tdmpc_lab.tracking.store import open_client, store_uri
from tdmpc_lab.tracking.view import RUNS, VARIANTS

SPEC = "experiments/quick.yaml"
RETURN = "eval/return_mean"
POINTS = [(3, 1), (3, 2), (4, 1)]  # horizon and seed


@pytest.fixture
def lab(project: Path) -> Project:
    """A project whose store holds the three jobs of a sweep over horizon and seed, by way of `sync`."""
    (project / SPEC).write_text("env: {id: Pendulum-v1}\nabout: how far ahead?\nagent: {latent_dim: 16}\n")
    lab = Project(project)
    for index, (horizon, seed) in enumerate(POINTS):
        add_job(lab, index, horizon, seed)
    judge(lab, job_id(2), "good", "because it looks further", ())
    assert [done.what for done in sync(lab)] == ["sent"] * len(POINTS)
    return lab


def job_id(index: int) -> str:
    return f"local-20260203-091422-10{index}"


def add_job(lab: Project, index: int, horizon: int, seed: int) -> None:
    """A job that completed; the longer its horizon, the better it is."""
    words = (f"agent.horizon={horizon}", f"train.seed={seed}")
    spec = load_spec(lab.root / SPEC, words).spec
    paths = lab.job(job_id(index))
    paths.folder.mkdir(parents=True)
    paths.spec.write_text((lab.root / SPEC).read_text())
    paths.resolved.write_text(dump_yaml(spec))
    record = JobRecord(
        id=paths.id, experiment=spec.name, env_id=spec.env.id, about=spec.about, group=group_hash(spec),
        config_hash=config_hash(spec), seed=seed, cluster="local", overrides=words, spec_file=SPEC,
        submitted_at=f"2026-02-03T09:14:2{index}+00:00", steps_total=1000,
        sweep={"index": index, "count": len(POINTS), "point": {"agent.horizon": horizon, "train.seed": seed}},
    )  # fmt: skip
    write_record(paths, record)
    log = EventLog(paths.events, clock=lambda: datetime(2026, 2, 3, 10, tzinfo=UTC))
    log.append("started", host=os.uname().nodename, pid=2**22 + 1, attempt=1)
    for step in range(100, 1100, 100):
        row = {"step": step, "split": "eval", "attempt": 1, "wall_s": step / 10, "episodes": 5, "return_std": 0.0}
        append_jsonl(paths.metrics, {**row, "return_mean": -1200 * math.exp(-step * horizon / 2000) - seed})
    log.append("finished", step=1000, attempt=1)


def run_ids(lab: Project) -> list[str]:
    client = open_client(store_uri(lab.root), lab.root)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = {run.data.tags[JOB_TAG]: run.info.run_id for run in client.search_runs(experiments)}
    return [runs[job_id(index)] for index in range(len(POINTS))]


def rows(page: Any) -> list[str]:
    """The names in the table, from top to bottom: of groups of runs, and of runs without their ids."""
    found = page.locator(".ag-pinned-left-cols-container .ag-row").all()
    texts = {int(row.get_attribute("row-index")): row.inner_text() for row in found}
    return [name[0] for _, text in sorted(texts.items()) if (name := re.search(r"Group: \S+|\S+(?= · )", text))]


def colours(page: Any, run_id: str) -> list[str]:
    """The colours of variants that anything in the row of a run is filled with: the dot beside its name."""
    fills = page.locator(f'.ag-pinned-left-cols-container .ag-row[row-id="{run_id}"] *').evaluate_all(
        "all => all.map(one => getComputedStyle(one).backgroundColor)"
    )
    return [colour for colour in PALETTE if "rgb({}, {}, {})".format(*bytes.fromhex(colour[1:])) in fills]


def answer(base: str, host: str) -> int:
    request = urllib.request.Request(f"{base}/", headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return int(error.code)


def test_a_sweep_in_the_browser(page: Any, lab: Project) -> None:
    ids = run_ids(lab)
    with served(lab.root) as url:
        base = "{0.scheme}://{0.netloc}".format(urlsplit(url))
        assert [answer(base, host) for host in ("localhost:99", "192.168.0.7", "evil.example")] == [200, 403, 403]

        columns = ["Run Name", "Created", "Duration", RETURN, "agent.horizon", "seed", "verdict", "variant"]
        assert sorted(open_view(page, url)) == sorted(columns)
        assert rows(page) == ["Group: h4", "h4-s1", "Group: h3", "h3-s1", "h3-s2"]

        assert sorted(open_view(page, url.replace(VARIANTS, RUNS))) == sorted(columns)
        assert rows(page) == ["h4-s1", "h3-s1", "h3-s2"]
        assert [colours(page, run_id) for run_id in ids] == [[PALETTE[0]], [PALETTE[0]], [PALETTE[1]]]

        compare(page, [ids[0], ids[2]])
        differences_only(page)
        differing = [line for table in page.locator("table").all() for line in table.inner_text().splitlines()]
        assert "agent.horizon\t3\t4" in differing
        assert [line for line in differing if line.startswith(("agent.", "train.", "env.", "planner."))] == [
            "agent.horizon\t3\t4"
        ]
        assert len(set(open_curves(page, RETURN))) == 2
        assert page.locator(".js-plotly-plot").count() == 1  # both in one chart
