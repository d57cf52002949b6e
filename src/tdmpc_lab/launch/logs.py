"""A job's `log.out` and `log.err` as links to the files that submitit writes."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from tdmpc_lab.jobs.paths import JobPaths


def link_logs(paths: JobPaths, submitit_folder: Path, submitit_id: str) -> None:
    """Point `log.out` and `log.err` at submitit's files of its job `submitit_id`.

    The links are relative, so the project can be moved. The files may not exist yet; links of an earlier
    attempt are replaced, anything else of that name is left alone. Raises OSError.
    """
    for link, ending in ((paths.log_out, "out"), (paths.log_err, "err")):
        if link.exists() and not link.is_symlink():
            continue
        target = os.path.relpath(submitit_folder / f"{submitit_id}_0_log.{ending}", link.parent)
        temp = link.with_name(f".{link.name}.{secrets.token_hex(4)}.tmp")
        temp.symlink_to(target)
        temp.replace(link)
