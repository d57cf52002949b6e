"""The mirror in front of a server that is not there. One that comes back: `tests/app/mlflow/test_outage.py`."""

from __future__ import annotations

import time
from pathlib import Path

from tracking_fixtures import make_job, mirror, write_rows

from servers import free_port, wait_until


def test_closing_in_front_of_a_dead_server_is_bounded_and_honest(tmp_path: Path) -> None:
    paths = make_job(tmp_path)
    write_rows(paths, range(1, 101))
    follower = mirror(paths, tmp_path, f"http://me:secret@127.0.0.1:{free_port()}").start()
    begun = time.monotonic()
    report = follower.close("FINISHED", timeout_s=5)
    assert time.monotonic() - begun < 6
    assert (report.complete, report.sent_points) == (False, 0)
    assert report.problem is not None
    assert "secret" not in report.problem
    assert "127.0.0.1" in report.problem
    assert str(paths.metrics) in report.problem
    wait_until(lambda: follower.problem is not None, 30)
    assert "secret" not in str(follower.problem)
