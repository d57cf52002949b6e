"""`rerun`: a new job that starts afresh with an old one's config and the code that the old one ran."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

from tdmpc_lab.app.code import JobCode, code_of_job
from tdmpc_lab.app.resources import refuse_profile
from tdmpc_lab.app.specs import check_environments, differences, refuse_sweep
from tdmpc_lab.app.starts import find_starts
from tdmpc_lab.app.status import job_views
from tdmpc_lab.app.submit import Plan
from tdmpc_lab.config.loader import LoadedSpec, load_stored
from tdmpc_lab.errors import LabError
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord, read_record
from tdmpc_lab.launch.environment import clean_environment
from tdmpc_lab.streams import UTF8_STREAMS

_TIMEOUT_S = 60
_RESOLVE = """
import sys
from tdmpc_lab.config.loader import load_spec
from tdmpc_lab.config.serialize import dump_yaml
sys.stdout.write(dump_yaml(load_spec(sys.argv[1], sys.argv[2:]).spec))
"""


def plan_rerun(project: Project, job: str, overrides: Sequence[str]) -> tuple[Plan, JobCode | None]:
    """What a job that repeats `job` would be, and the code it runs; None where the old one ran the project's own
    files, so that those of now are all there is.

    Overridden keys are shown as the differences to the old job. The environment is made only where the code is
    that of now: that of the snapshot has been made before.
    Raises:
        UsageError: no such job.
        SpecError: the overrides do not fit, or the environment can't be made.
        RecordError: the old job's files can't be read, or its snapshot is gone.
    """
    old = project.require_job(job)
    record = read_record(old)
    (view,) = job_views(project, [old.id])
    if not view.over:
        print(f"note: job {old.id} is {view.state} and not over: the new one runs beside it", file=sys.stderr)
    code = code_of_job(project, old, record)
    words = list(overrides)
    refuse_profile(old.id, words)
    if words and not any(word.startswith("compare_to=") for word in words):
        words.append(f'compare_to="{old.id}"')  # quoted: a SLURM id would be a number
    loaded = load_stored(old.resolved, words)
    refuse_sweep(loaded, "run again")
    if code is None:
        check_environments(project, [loaded])
    (start,) = find_starts(project, [loaded], make_environments=code is None, repeated=old)
    diff = _differences(project, loaded, record, bool(words))
    item = replace(loaded, text=old.spec.read_text(encoding="utf-8"), overrides=tuple(overrides))
    resolved = None
    if code is not None and code.package is None:
        resolved = _resolved(old, words, code)
    return Plan(item, diff, rerun_of=old, start=start, resolved=resolved), code


def _differences(project: Project, loaded: LoadedSpec, record: JobRecord, changed: bool) -> tuple[str, ...]:
    return differences(project, [loaded])[0] if changed else record.diff


def _resolved(old: JobPaths, words: Sequence[str], code: JobCode) -> str:
    """The values in force as the old package itself writes them: it may not know every key of this one.

    Raises LabError, with its words, when it does not take the overrides.
    """
    if not words:
        return old.resolved.read_text(encoding="utf-8")
    assert code.workplace is not None
    done = subprocess.run(
        [sys.executable, "-c", _RESOLVE, str(old.resolved), *words],
        cwd=code.workplace.folder,
        env=code.workplace.environment(clean_environment(os.environ)) | UTF8_STREAMS,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise LabError(f"the code that job {old.id} ran does not take {' '.join(words)}; it says: {said}")
    return done.stdout
