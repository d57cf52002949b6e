"""`load`: the metric rows of jobs as one pandas table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tdmpc_lab.files import read_jsonl
from tdmpc_lab.jobs.find import job_ids, select_jobs
from tdmpc_lab.jobs.metrics import eval_rows, without_replaced
from tdmpc_lab.jobs.paths import find_project
from tdmpc_lab.jobs.record import read_record

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["job", "experiment", "group", "seed"]


def load(
    jobs: Sequence[str] | str | None = None, *, split: Literal["train", "eval"] | None = None, root: Path | None = None
) -> pd.DataFrame:
    """Every metric row of the jobs named (default: all of the project), one table row each.

    `jobs` are words as `compare` takes them: experiments, groups, ids. `split` keeps the rows of the evaluations or of
    the training alone (evaluations alone are read much faster). Columns: `job`, `experiment`, `group`, `seed`, then
    those of the rows (`step`, `split`, `return_mean`, …); what a row does not have is NaN. What a restarted attempt did
    again is left out. `root` is a folder in the project, default the working directory.

    Raises:
        UsageError: no project here, or a word means no job.
        RecordError: a job's record or metrics can't be read.
    """
    import pandas as pd

    project = find_project(root)
    if jobs is None:
        chosen = [(paths, read_record(paths)) for paths in map(project.job, job_ids(project))]
    else:
        chosen = select_jobs(project, [jobs] if isinstance(jobs, str) else jobs)
    tables = []
    for paths, record in chosen:
        rows = eval_rows(paths) if split == "eval" else without_replaced(read_jsonl(paths.metrics)[0])
        table = pd.DataFrame([row for row in rows if split in (None, row.get("split"))])
        known: list[str | int] = [record.id, record.experiment, record.group, record.seed]
        for position, (name, value) in enumerate(zip(COLUMNS, known, strict=True)):
            table.insert(position, name, value)
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
