"""`load`: the metric rows of jobs as one pandas table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tdmpc_lab.files import read_jsonl
from tdmpc_lab.jobs.metrics import without_replaced
from tdmpc_lab.jobs.paths import find_project
from tdmpc_lab.jobs.record import read_record

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["job", "experiment", "group", "seed"]


def load(jobs: Sequence[str] | None = None, *, root: Path | None = None) -> pd.DataFrame:
    """Every metric row of the jobs named (default: all of the project), one table row each.

    Columns: `job`, `experiment`, `group`, `seed`, then those of the rows (`step`, `split`, `return_mean`, …);
    what a row does not have is NaN. `root` is a folder in the project, default the working directory.

    Raises:
        UsageError: no project here, or no such job.
        RecordError: a job's record or metrics can't be read.
    """
    import pandas as pd

    project = find_project(root)
    tables = []
    for job_id in project.job_ids() if jobs is None else jobs:
        paths = project.require_job(job_id)
        record = read_record(paths)
        rows, _ = read_jsonl(paths.metrics)
        table = pd.DataFrame(without_replaced(rows))
        known: list[str | int] = [record.id, record.experiment, record.group, record.seed]
        for position, (name, value) in enumerate(zip(COLUMNS, known, strict=True)):
            table.insert(position, name, value)
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
