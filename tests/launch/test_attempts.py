"""Two attempts of one job at once: processes that live, sleep, die and come back."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tdmpc_lab.errors import AttemptLostError
from tdmpc_lab.files import append_jsonl, read_jsonl
from tdmpc_lab.launch import attempts
from tdmpc_lab.launch.attempts import AttemptLease

QUICK = {"beat_s": 0.05, "dead_s": 0.6}

# An attempt that writes rows 0, 1, 2, ... and continues after the last one on file, as a job with checkpoints does.
WRITER = """
import sys, time
from pathlib import Path
from tdmpc_lab.errors import AttemptLostError
from tdmpc_lab.files import append_jsonl, read_jsonl
from tdmpc_lab.launch.attempts import AttemptLease

folder, last = Path(sys.argv[1]), int(sys.argv[2])
lease = AttemptLease.claim(folder / "attempts", beat_s=0.05, dead_s=0.6)
if not lease.wait():
    sys.exit(3)
(folder / f"owner-{lease.number}").touch()
next_row = len(read_jsonl(folder / "rows.jsonl")[0])
try:
    while next_row <= last:
        with lease.guard():
            append_jsonl(folder / "rows.jsonl", {"row": next_row, "attempt": lease.number})
        next_row += 1
        time.sleep(0.01)
except AttemptLostError:
    sys.exit(4)
lease.release()
"""


def start(folder: Path, last: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(last)])


def until(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def rows(folder: Path) -> list[dict]:
    return read_jsonl(folder / "rows.jsonl")[0]


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process takes itself for one of another machine: it can't see whether others live."""
    monkeypatch.setattr(attempts, "_place", lambda: "another machine")


def test_one_after_the_other(tmp_path):
    first = AttemptLease.claim(tmp_path, **QUICK)
    assert first.wait()
    with first.guard():
        pass
    first.release()
    with pytest.raises(AttemptLostError, match="attempt 1 of this job is over"), first.guard():
        raise AssertionError("not reached")
    second = AttemptLease.claim(tmp_path, **QUICK)
    assert (first.number, second.number) == (1, 2)
    begun = time.monotonic()
    assert second.wait()
    assert time.monotonic() - begun < 0.3
    second.release()
    second.release()


def test_an_attempt_that_was_counted_otherwise(tmp_path):
    lease = AttemptLease.claim(tmp_path, at_least=4, **QUICK)
    assert lease.number == 4
    assert lease.wait()
    lease.release()


def test_the_later_attempt_wins_and_no_row_is_missing_or_doubled(tmp_path):
    old = start(tmp_path, 100_000)
    until(lambda: len(rows(tmp_path)) > 5)
    new = start(tmp_path, 200)
    assert old.wait(20) == 4
    assert new.wait(20) == 0
    written = rows(tmp_path)
    assert [row["row"] for row in written] == list(range(201))
    assert [row["attempt"] for row in written] == sorted(row["attempt"] for row in written)
    assert {row["attempt"] for row in written} == {1, 2}


def test_a_process_that_wakes_up_after_it_was_given_up_writes_nothing(tmp_path, monkeypatch):
    elsewhere(monkeypatch)
    old = start(tmp_path, 100_000)
    until(lambda: len(rows(tmp_path)) > 5)
    os.kill(old.pid, signal.SIGSTOP)
    try:
        new = AttemptLease.claim(tmp_path / "attempts", **QUICK)
        begun = time.monotonic()
        assert new.wait()
        assert time.monotonic() - begun > 0.4
        count = len(rows(tmp_path))
        os.kill(old.pid, signal.SIGCONT)
        assert old.wait(20) == 4
        assert len(rows(tmp_path)) == count
        new.release()
    finally:
        old.kill()
        old.wait()


def test_how_long_ago_the_last_heartbeat_was(tmp_path):
    """Of a process that is known to have ended, here or by its own word, it is for ever."""
    folder = tmp_path / "attempts"
    assert attempts.heartbeat_s(folder) is None
    first = AttemptLease.claim(folder, **QUICK)
    assert attempts.heartbeat_s(folder) < 10
    assert attempts.beats(folder)
    first.release()
    assert attempts.heartbeat_s(folder) == math.inf
    process = start(tmp_path, last=10**6)
    until((tmp_path / "owner-2").exists)
    assert attempts.beats(folder)
    process.kill()
    process.wait()
    assert attempts.heartbeat_s(folder) == math.inf
    assert not attempts.beats(folder)
    path = folder / "000002.json"  # of a machine whose processes can't be seen from here
    path.write_text(json.dumps({**json.loads(path.read_text()), "host": "node7"}).ljust(511) + "\n")
    assert attempts.beats(folder)
    os.utime(path, (time.time() - 100, time.time() - 100))
    assert attempts.heartbeat_s(folder) == pytest.approx(100, abs=5)
    assert not attempts.beats(folder)


def test_a_dead_process_of_this_machine_is_not_waited_for(tmp_path):
    old = start(tmp_path, 100_000)
    until(lambda: len(rows(tmp_path)) > 5)
    old.kill()
    old.wait()
    new = AttemptLease.claim(tmp_path / "attempts", beat_s=0.05, dead_s=60)
    begun = time.monotonic()
    assert new.wait()
    assert time.monotonic() - begun < 2
    new.release()


def test_silence_before_this_attempt_counts(tmp_path, monkeypatch):
    """The file server's clock stamps both attempts' files, so the wait is over where the silence was long."""
    elsewhere(monkeypatch)
    old = AttemptLease.claim(tmp_path, **QUICK)
    old._closed = True
    old._wake.set()
    old._thread.join()
    past = time.time() - 3600
    os.utime(tmp_path / "000001.json", (past, past))
    monkeypatch.setattr(attempts, "_place", lambda: "a third machine")
    new = AttemptLease.claim(tmp_path, beat_s=0.05, dead_s=60)
    begun = time.monotonic()
    assert new.wait()
    assert time.monotonic() - begun < 2
    new.release()


@pytest.mark.parametrize("offset", [-7200, 7200])
def test_clocks_that_disagree_do_no_harm(tmp_path, monkeypatch, offset):
    """An attempt on a machine whose clock is wrong is alive as long as it gives signs."""
    elsewhere(monkeypatch)
    old = AttemptLease.claim(tmp_path, beat_s=0.05, dead_s=0.6)
    assert old.wait()
    monkeypatch.setattr(old, "_yield", lambda winner: None)  # it never yields
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + offset)
    keeps_beating = True

    def beat() -> None:
        while keeps_beating:
            old._say("alive")
            time.sleep(0.05)

    import threading

    thread = threading.Thread(target=beat)
    thread.start()
    new = AttemptLease.claim(tmp_path, **QUICK)
    end = time.monotonic() + 1.5
    assert not new.wait(give_up=lambda: time.monotonic() > end)
    keeps_beating = False
    thread.join()
    assert new.wait()
    new.release()
    old.release()


def test_it_does_not_yield_in_the_midst_of_a_write(tmp_path):
    old = AttemptLease.claim(tmp_path, **QUICK)
    assert old.wait()
    told: list[int] = []
    old.on_lost(told.append)
    with old.guard():
        new = AttemptLease.claim(tmp_path, **QUICK)
        until(lambda: bool(told))
        end = time.monotonic() + 1.2  # twice as long as an attempt may be silent
        assert not new.wait(give_up=lambda: time.monotonic() > end)
        append_jsonl(tmp_path / "rows.jsonl", {"row": 0})
    assert new.wait()
    assert told == [2]
    assert json.loads((tmp_path / "000001.json").read_text())["phase"] == "yielded"
    with pytest.raises(AttemptLostError, match="attempt 2 of this job has taken over"), old.guard():
        raise AssertionError("not reached")
    old.release()
    new.release()


def test_of_three_the_last_wins(tmp_path):
    leases = [AttemptLease.claim(tmp_path, **QUICK) for _ in range(3)]
    assert [lease.number for lease in leases] == [1, 2, 3]
    assert not leases[1].wait()
    assert leases[2].wait()
    for lease in leases:
        lease.release()


def test_a_file_with_nothing_in_it_is_an_attempt_that_may_be_alive(tmp_path):
    tmp_path.joinpath("000001.json").touch()
    tmp_path.joinpath("notes.txt").touch()
    lease = AttemptLease.claim(tmp_path, **QUICK)
    begun = time.monotonic()
    assert lease.number == 2
    assert lease.wait()
    assert time.monotonic() - begun > 0.4
    lease.release()
