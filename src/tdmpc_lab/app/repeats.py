"""Jobs that are about to be submitted although the same has run, or runs: found by the hash of their whole config."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tdmpc_lab.app.code import JobCode
from tdmpc_lab.app.status import JobView, job_views
from tdmpc_lab.app.submit import Plan
from tdmpc_lab.config.diff import config_hash
from tdmpc_lab.jobs.ids import natural_key
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.jobs.state import State
from tdmpc_lab.notes.render import outcome_line

# Read without parsing: thousands of records have to be looked at.
_HASH = re.compile(rb'"config_hash": "([0-9a-f]{16})"')
_COUNTS = (State.PENDING, State.RUNNING, State.COMPLETED)


@dataclass(frozen=True)
class Repeats:
    """What is known of jobs with the config and seed of those planned, one line each."""

    refused: tuple[str, ...]
    """Jobs of the same experiment that wait, run or completed, and plans given twice."""
    said: tuple[str, ...]
    """Jobs that came to nothing, or were submitted under another name: worth knowing, no reason to stop."""


def find_repeats(project: Project, plans: Sequence[Plan], code: Callable[[], JobCode]) -> Repeats:
    """Earlier jobs of the project, and earlier plans of the same call, with the same config and seed.

    `code` gives what the new jobs would run: it is said whether an earlier job ran the same. Names and resources
    do not count as a difference. Raises OSError when a record can't be read.
    """
    wanted: dict[str, list[Plan]] = {}
    for plan in plans:
        wanted.setdefault(config_hash(plan.item.spec), []).append(plan)
    refused, said = _within_the_call(wanted)
    ids: dict[str, str] = {}
    for job_id, raw in project.raw_records():
        if (match := _HASH.search(raw)) and (found := match[1].decode()) in wanted:
            ids[job_id] = found
    snapshot = code().snapshot if ids else None
    for view in job_views(project, sorted(ids, key=natural_key)):
        if view.record is None or view.status is None:  # a damaged one is `status`'s to report
            continue
        same = [plan for plan in wanted[ids[view.id]] if _begins_alike(plan, view.record)]
        if not same:
            continue
        namesake = next((plan for plan in same if plan.item.spec.name == view.record.experiment), None)
        text = _told(namesake or same[0], view, snapshot)
        if namesake is not None and view.status.state in _COUNTS:
            refused.append(text)
        else:
            said.append(text)
    return Repeats(tuple(refused), tuple(said))


def _within_the_call(wanted: dict[str, list[Plan]]) -> tuple[list[str], list[str]]:
    refused, said = [], []
    for same in wanted.values():
        names: set[str] = set()
        for plan in same:
            if plan.item.spec.name in names:
                refused.append(f"{_name(plan)}: given twice")
            elif names:
                said.append(f"{_name(plan)}: the same config as {same[0].item.spec.name}")
            names.add(plan.item.spec.name)
    return refused, said


def _begins_alike(plan: Plan, record: JobRecord) -> bool:
    """Whether both begin with the same agent, as far as its step tells: behind one name there may be others in time."""
    before = record.start_from
    return plan.start is None or before is None or plan.start.told["step"] == before.get("step")


def _told(plan: Plan, view: JobView, snapshot: str | None) -> str:
    assert view.record is not None
    assert view.status is not None
    record = view.record
    other = f" (as {record.experiment})" if record.experiment != plan.item.spec.name else ""
    same = record.snapshot is not None and record.snapshot == snapshot
    known = record.snapshot is not None and snapshot is not None
    code = ", with the same code" if same else ", with other code" if known else ""
    return f"{_name(plan)}: job {view.id}{other}{code}: {outcome_line(view.status)}"


def _name(plan: Plan) -> str:
    point = plan.item.point
    return f"{plan.item.spec.name}, {point}" if point else f"{plan.item.spec.name}, seed {plan.item.spec.train.seed}"
