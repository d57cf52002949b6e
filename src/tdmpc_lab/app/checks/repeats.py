"""Jobs that are about to be submitted although the same has run, or runs: found by the hash of their whole config."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from tdmpc_lab.app.queue.status import JobView, job_views
from tdmpc_lab.app.submit.code import JobCode
from tdmpc_lab.app.submit.submit import JobPlan
from tdmpc_lab.config.diff import config_hash
from tdmpc_lab.errors import UsageError
from tdmpc_lab.files import file_lock
from tdmpc_lab.jobs.find import raw_records
from tdmpc_lab.jobs.ids import natural_key
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.jobs.state import State
from tdmpc_lab.notes.render import outcome_line

# Read without parsing: thousands of records have to be looked at.
_HASH = re.compile(rb'"config_hash": "([0-9a-f]{16})"')


@dataclass(frozen=True)
class Repeats:
    """What is known of jobs with the config and seed of those planned, one line each."""

    refused: tuple[str, ...]
    """Jobs of the same experiment that wait, run or completed, and plans given twice."""
    said: tuple[str, ...]
    """Jobs that came to nothing, or were submitted under another name: worth knowing, no reason to stop."""
    seen: frozenset[str] = field(default=frozenset(), compare=False)
    """The ids of all jobs of the same experiment that were found, whatever became of them."""
    plans: frozenset[int] = field(default=frozenset(), compare=False)
    """The numbers of the plans among `refused`: without these the others can be submitted."""


def find_repeats(project: Project, plans: Sequence[JobPlan], code: Callable[[], JobCode]) -> Repeats:
    """Earlier jobs of the project, and earlier plans of the same call, with the same config and seed.

    `code` gives what the new jobs would run: it is said whether an earlier job ran the same. Names and resources
    do not count as a difference. Raises OSError when a record can't be read.
    """
    wanted: dict[str, list[int]] = {}
    for number, plan in enumerate(plans):
        wanted.setdefault(config_hash(plan.item.spec), []).append(number)
    refused, said, numbers = _within_the_call(plans, wanted)
    ids: dict[str, str] = {}
    for job_id, raw in raw_records(project):
        if (match := _HASH.search(raw)) and (found := match[1].decode()) in wanted:
            ids[job_id] = found
    snapshot = code().snapshot if ids else None
    seen = set()
    for view in job_views(project, sorted(ids, key=natural_key)):
        if view.record is None or view.status is None:  # a damaged one is `status`'s to report
            continue
        same = [number for number in wanted[ids[view.id]] if _begins_alike(plans[number], view.record)]
        if not same:
            continue
        namesakes = [number for number in same if plans[number].item.spec.name == view.record.experiment]
        text = _told(plans[(namesakes or same)[0]], view, snapshot)
        if namesakes:
            seen.add(view.id)
        if namesakes and (not view.over or view.status.state is State.COMPLETED):
            refused.append(text)
            numbers |= set(namesakes)
        else:
            said.append(text)
    return Repeats(tuple(refused), tuple(said), frozenset(seen), frozenset(numbers))


@contextlib.contextmanager
def recording(
    project: Project, plans: Sequence[JobPlan], known: Collection[str], code: Callable[[], JobCode]
) -> Iterator[None]:
    """Hold the project's submit lock while jobs are recorded and started: of two submits at the same moment the second
    sees the jobs of the first.

    `known` are the jobs like these that were `seen` before. Raises UsageError where there are more by now, whatever
    their state: a job that was just recorded need not have begun.
    """
    with file_lock(project.submit_lock):
        found = find_repeats(project, plans, code)
        if new := sorted(found.seen - set(known), key=natural_key):
            raise UsageError(
                f"the same config and seed was submitted a moment ago, as {', '.join(new)}; nothing was done "
                "(--again: submit all the same)"
            )
        yield


def _within_the_call(plans: Sequence[JobPlan], wanted: dict[str, list[int]]) -> tuple[list[str], list[str], set[int]]:
    refused, said, numbers = [], [], set()
    for same in wanted.values():
        names: set[str] = set()
        for number in same:
            name = plans[number].item.spec.name
            if name in names:
                refused.append(f"{_name(plans[number])}: given twice")
                numbers.add(number)
            elif names:
                said.append(f"{_name(plans[number])}: the same config as {plans[same[0]].item.spec.name}")
            names.add(name)
    return refused, said, numbers


def _begins_alike(plan: JobPlan, record: JobRecord) -> bool:
    """Whether both begin with the same agent, as far as its step tells: behind one name there may be others in time."""
    before = record.start_from
    return plan.start is None or before is None or plan.start.told["step"] == before.get("step")


def _told(plan: JobPlan, view: JobView, snapshot: str | None) -> str:
    assert view.record is not None
    assert view.status is not None
    record = view.record
    other = f" (as {record.experiment})" if record.experiment != plan.item.spec.name else ""
    same = record.snapshot is not None and record.snapshot == snapshot
    known = record.snapshot is not None and snapshot is not None
    code = ", with the same code" if same else ", with other code" if known else ""
    return f"{_name(plan)}: job {view.id}{other}{code}: {outcome_line(view.status)}"


def _name(plan: JobPlan) -> str:
    point = plan.item.point
    return f"{plan.item.spec.name}, {point}" if point else f"{plan.item.spec.name}, seed {plan.item.spec.train.seed}"
