"""The mirror against a real MLflow server on this machine, which is killed and comes back."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from tracking_fixtures import expected, held, make_job, mirror, repeated, write_rows

START_S = 90


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _server(folder: Path, port: int) -> Iterator[None]:
    """A server of its own process group, killed without warning at the end."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/server.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environ = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_until(lambda: _healthy(port) or _ended(process, folder), START_S)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def _ended(process: subprocess.Popen[bytes], folder: Path) -> bool:
    assert process.poll() is None, (folder / "server.log").read_text()
    return False


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _wait_until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_server_that_dies_and_comes_back(tmp_path: Path) -> None:
    port = _free_port()
    uri = f"http://127.0.0.1:{port}"
    paths = make_job(tmp_path)
    paths.resolved.write_text("name: quickstart\n")
    with _server(tmp_path, port):
        follower = mirror(paths, tmp_path, uri).start()
        write_rows(paths, range(1, 401))
        _wait_until(lambda: follower.report().sent_points > 0, 60)
    write_rows(paths, range(401, 801))
    _wait_until(lambda: follower.problem is not None, 60)
    with _server(tmp_path, port):
        write_rows(paths, range(801, 1001))
        report = follower.close("FINISHED", files={"resolved.yaml": paths.resolved}, timeout_s=60)
        assert (report.problem, report.complete) == (None, True)
        points = held(uri, tmp_path, ("train/return", "loss/reward"))
        assert repeated(points) == []
        assert points[:1000] == expected(range(1, 1001))
        assert len(points) == 2000
    assert [p.name for p in (tmp_path / "artifacts").rglob("*.yaml")] == ["resolved.yaml"]


def test_closing_in_front_of_a_dead_server_is_bounded_and_honest(tmp_path: Path) -> None:
    paths = make_job(tmp_path)
    write_rows(paths, range(1, 101))
    follower = mirror(paths, tmp_path, f"http://me:secret@127.0.0.1:{_free_port()}").start()
    begun = time.monotonic()
    report = follower.close("FINISHED", timeout_s=5)
    assert time.monotonic() - begun < 6
    assert (report.complete, report.sent_points) == (False, 0)
    assert report.problem is not None
    assert "secret" not in report.problem
    assert "127.0.0.1" in report.problem
    assert str(paths.metrics) in report.problem
    _wait_until(lambda: follower.problem is not None, 30)
    assert "secret" not in str(follower.problem)
