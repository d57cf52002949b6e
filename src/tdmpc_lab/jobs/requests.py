"""`requests.jsonl`: what a person asked of a job, one JSON object a line, written by the command line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tdmpc_lab.files import append_jsonl, read_jsonl
from tdmpc_lab.jobs.paths import JobPaths
from tdmpc_lab.sharing import user_name
from tdmpc_lab.text import parse_time


def ask(paths: JobPaths, request: str, **fields: Any) -> dict[str, Any]:
    """Put a request on file, with time and person: `cancel` (save), `resume` (job). Raises OSError."""
    now = datetime.now().astimezone().isoformat(timespec="milliseconds")
    row = {"time": now, "request": request, "by": person(), **fields}
    append_jsonl(paths.requests, row)
    return row


def person() -> str:
    """Who uses this process: the login name, else the user's number. Variables (USER) may tell of somebody else."""
    return user_name(os.getuid())


def read_requests(paths: JobPaths) -> list[dict[str, Any]]:
    """All requests in the order made. Raises RecordError."""
    rows, _ = read_jsonl(paths.requests)
    return rows


def cancelled_since(requests: Sequence[dict[str, Any]], since: datetime | None) -> str | None:
    """Who asked for the job's end at or after `since` (None: ever); None when nobody did."""
    for row in reversed(requests):
        moment = parse_time(row.get("time"))
        if row.get("request") == "cancel" and (since is None or moment is None or moment >= since):
            return str(row.get("by") or "somebody")
    return None
