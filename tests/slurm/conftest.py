"""Tests on a real SLURM cluster: four virtual nodes on this machine, started by `tools/slurm-sim up`.

Without a cluster they are skipped, in one line; with TDMPC_LAB_REQUIRE_SLURM=1 (as in `.ci/run`) they fail.
The cluster is the one that SLURM_CONF names, else the one in the project's `.slurm-sim`. A cluster whose nodes
are other machines is never used: these tests are not for a cluster that people work on.

How to write one:

    def test_a_job_completes(lab):                       # a project of its own, thrown away after
        job = lab.submit("experiments/quick.yaml")       # through the command line; the job's id
        assert lab.wait_for(job, "COMPLETED")["step"] == 80
        assert lab.events(job)[-1]["event"] == "finished"
        lab.slurm("scontrol", "requeue", job)            # SLURM's own commands

- `lab` submits to the cluster that all tests share, several at once (`pytest -n 2`). Whatever the test's project
  has in the queue is cancelled after it. Disturb nothing there but your own jobs.
- A test that kills nodes, stops slurmctld, fills partitions or needs accounting off starts a cluster of its own:
  `sim = start_cluster()` or `start_cluster(accounting=False)` (2 s, and 0.5 s), `lab = make_lab(sim)`, then
  `sim("kill-node", "tcml-node1")`, `sim("stop-controller")`, … as in `tools/slurm-sim --help`.
- Every wait has an end: `lab.wait_for(job, STATE, …, seconds=…)`, `lab.until(condition, seconds)`. Those tests that
  wait for long should start all they wait for first; a job costs about ten seconds of one processor until it trains.
- Specs: `quick.yaml` trains in a second, `moody.yaml` has an environment that fails, dies, exits or is slow as its
  options say (`env.options.fail_at=30`, see `tests/app/app_fixtures.py`).
- Tests that share an expensive fixture of module scope carry `pytestmark = pytest.mark.xdist_group("NAME")`.
- A test may take 180 s; more with `@pytest.mark.timeout(300)`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from slurm_fixtures import DEFAULT_CONF, Lab, Sim, make_empty_store, reachable

# Taken before the environment is cleaned for every test.
NAMED = os.environ.get("SLURM_CONF")
REQUIRED = os.environ.get("TDMPC_LAB_REQUIRE_SLURM") == "1"
MISSING = "no SLURM cluster of this machine is up; start one: tools/slurm-sim up"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """All skips for want of a cluster at one place: pytest's summary then has one line for them, with their number."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple) and MISSING in report.longrepr[2]:
        report.longrepr = ("tests/slurm", None, f"Skipped: {MISSING}")  # type: ignore[assignment]
    return report


@pytest.fixture(scope="session")
def cluster() -> Path:
    """The slurm.conf of the cluster that all tests share."""
    conf = Path(NAMED) if NAMED else DEFAULT_CONF
    if not reachable(conf):
        if REQUIRED:
            pytest.fail(f"{MISSING} (TDMPC_LAB_REQUIRE_SLURM=1, looked for {conf})", pytrace=False)
        pytest.skip(MISSING)
    return conf


@pytest.fixture(scope="session")
def empty_store(cluster: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store to copy, shared by the workers of pytest-xdist, whose folders lie in one."""
    own = tmp_path_factory.getbasetemp()
    return make_empty_store(own.parent if "PYTEST_XDIST_WORKER" in os.environ else own)


@pytest.fixture
def make_lab(
    cluster: Path, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Lab]]:
    """`make_lab(sim)` makes a project that submits to this cluster; `make_lab()` one for the shared one."""
    made: list[Lab] = []

    def make(sim: Sim | None = None) -> Lab:
        conf = cluster if sim is None else sim.conf
        monkeypatch.setenv("SLURM_CONF", str(conf))  # for what a test calls in its own process
        lab = Lab(tmp_path / f"project{len(made) or ''}", conf, empty_store)
        made.append(lab)
        return lab

    yield make
    for lab in made:
        lab.cancel_all()


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    """A project that submits to the shared cluster."""
    return make_lab()


@pytest.fixture
def start_cluster(cluster: Path) -> Iterator[Callable[..., Sim]]:
    """`start_cluster(accounting=True)` starts a cluster for this test alone, to be broken at will; `all_users=True` one
    for other users, too, which takes root."""
    started: list[Sim] = []

    def start(*, accounting: bool = True, all_users: bool = False) -> Sim:
        sim = Sim()
        started.append(sim)
        sim("up", *([] if accounting else ["--no-accounting"]), *(["--all-users"] if all_users else []))
        return sim

    yield start
    for sim in started:
        sim("down", "--remove")
