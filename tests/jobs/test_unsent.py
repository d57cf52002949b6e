from __future__ import annotations

from pathlib import Path

from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.unsent import Unsent, all_is_sent, mark_unsent, unsent_as, unsent_jobs

ONE, TWO, GONE = "1971498", "local-20260203-091422-123", "1971499_3"


def test_marks_come_and_go(tmp_path: Path) -> None:
    lab = Project(tmp_path)
    assert unsent_jobs(lab) == {}
    all_is_sent(lab, ONE)  # there is none: nothing happens
    for job_id in (ONE, TWO):
        lab.job(job_id).folder.mkdir(parents=True)
        lab.job(job_id).record.write_text("{}")
    mark_unsent(lab, ONE, Unsent("later"))
    mark_unsent(lab, TWO, Unsent("live"))
    mark_unsent(lab, GONE, Unsent("live"))  # somebody has removed its folder since
    (lab.unsent / "notes").write_text("of somebody")
    mark_unsent(lab, ONE, Unsent("later", 7))
    assert unsent_jobs(lab) == {ONE: Unsent("later", 7), TWO: Unsent("live")}
    assert unsent_as(lab, GONE) is None
    (lab.unsent / TWO).write_text("torn")
    assert unsent_as(lab, TWO) == Unsent("live")
    all_is_sent(lab, ONE)
    assert set(unsent_jobs(lab)) == {TWO}
