"""From rows of `metrics.jsonl` to MLflow's points: names, times, and which of them MLflow has already."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Self

from tdmpc_lab.jobs.metrics import as_float, as_int
from tdmpc_lab.text import parse_time

_MAX_NAME = 250
_LONGEST_LABEL = 40
_MODES = (":plan", ":policy")
_NOT_TELLING = frozenset({"", ".", "..", "jobs", "checkpoints", "opponents", "pool"})
_AGAINST = re.compile(
    r"(?P<what>win_low|win_high|win|draw|loss|return)_(?P<who>.*(?:/.*|\.pt(?::plan|:policy)?))", re.DOTALL
)
_MAX_STEP = 2**63 - 1
_NOT_ALLOWED = re.compile(r"[^/\w.\- :]")
_NO_METRICS = frozenset({"step", "split", "attempt", "env", "wall_s"})  # they say where and when a row is from
_MARK_BYTES = 256
_MAX_TAG = 7900  # MLflow cuts longer ones off
_ANY = "*"  # stands for every metric; no metric has this name


class Point(NamedTuple):
    """One value of one metric; `time_ms` since 1970, `step` an environment step."""

    name: str
    value: float
    time_ms: int
    step: int


def metric_name(key: str, split: str) -> str:
    """`loss/reward` as it is, `return` of the training as `train/return`; what MLflow refuses is replaced.

    An opponent given as a path is named shortly: `win_jobs/7/checkpoints/step_000050.pt` of an evaluation is
    `eval/win_7_step_000050-` and four letters that keep different paths different.
    """
    if match := _AGAINST.fullmatch(key):
        key = f"{match['what']}_{opponent_label(match['who'])}"
    return safe_name(key if "/" in key else f"{split}/{key}")


def opponent_label(name: str) -> str:
    """An opponent in the name of a metric: bots and jobs as they are, a path by its last two telling parts."""
    path, mode = next(((name.removesuffix(end), end) for end in _MODES if name.endswith(end)), (name, ""))
    if "/" not in path and not path.endswith(".pt"):
        return name
    parts = [part for part in path.removesuffix(".pt").split("/") if part not in _NOT_TELLING]
    short = "_".join(parts[-2:])[-_LONGEST_LABEL:].lstrip("_")
    return f"{short}-{hashlib.sha256(path.encode(errors='replace')).hexdigest()[:4]}{mode.replace(':', '_')}"


def safe_name(name: str) -> str:
    """A name that MLflow takes: letters, digits, `_-./: ` and at most 250 characters.

    Other characters become their hexadecimal code (`%` is `_u25_`), so different names stay different.
    """
    parts = [_NOT_ALLOWED.sub(_coded, part) for part in name.split("/") if part]
    parts = [part.replace(".", "_u2e_") if part in (".", "..") else part for part in parts]
    safe = "/".join(parts) or "_"
    if len(safe) > _MAX_NAME:
        safe = f"{safe[: _MAX_NAME - 9]}-{hashlib.sha256(safe.encode()).hexdigest()[:8]}"
    return safe


def _coded(match: re.Match[str]) -> str:
    return f"_u{ord(match.group()):x}_"


def attempt_starts(events: list[dict[str, Any]]) -> dict[int, datetime]:
    """When each attempt would have begun had it done all the training itself, by its number.

    That is what a row's `wall_s` counts from: it continues where the attempt before had left it.
    """
    starts: dict[int, datetime] = {}
    for event in events:
        attempt, moment = as_int(event.get("attempt")), parse_time(event.get("time"))
        if event.get("event") == "started" and attempt is not None and moment is not None:
            starts[attempt] = moment
        if event.get("event") == "resumed" and attempt is not None and attempt in starts:
            starts[attempt] -= timedelta(seconds=as_float(event.get("wall_s")) or 0.0)
    return starts


def row_time(row: Mapping[str, Any], start: datetime) -> datetime:
    """When a row was written; `start` is that of its attempt, see `attempt_starts`."""
    try:
        return start + timedelta(seconds=as_float(row.get("wall_s")) or 0.0)
    except OverflowError:  # no time that a calendar knows
        return start


def row_points(row: Mapping[str, Any], start: datetime) -> list[Point]:
    """The finite numbers of a row. Their time is `start` (see `attempt_starts`) plus `wall_s`: a row sent twice gives
    the same points, which MLflow then keeps once. A row without a step that MLflow can hold gives none."""
    step = as_int(row.get("step"))
    if step is None or abs(step) > _MAX_STEP:
        return []
    split = row.get("split") if isinstance(row.get("split"), str) else "train"
    time_ms = round(row_time(row, start).timestamp() * 1000)
    return [
        Point(metric_name(key, str(split)), value, max(0, time_ms), step)
        for key, entry in row.items()
        if key not in _NO_METRICS and (value := as_float(entry)) is not None
    ]


@dataclass
class Sent:
    """How far a run's points have been sent; kept as a tag of the run itself.

    A job that continues from a checkpoint does some steps again and drops their rows from the file. Points of
    steps that an earlier attempt has sent already (`floor`, by metric) are not sent a second time.
    """

    offset: int = 0
    """Bytes of the file that were sent."""
    mark: int = 0
    """Checksum of the bytes before `offset`: tells whether the file was cut and written anew since."""
    attempt: int = 0
    """Attempt of the last row sent."""
    floor: dict[str, int] = field(default_factory=dict)
    """Last step sent by earlier attempts, by metric."""
    latest: dict[str, int] = field(default_factory=dict)
    """Last step sent by any attempt, by metric. Not in the tag: MLflow knows it."""

    def to_tag(self) -> str:
        """As one line of JSON."""
        text = json.dumps([self.offset, self.mark, self.attempt, self.floor], separators=(",", ":"))
        if len(text) <= _MAX_TAG:
            return text
        return json.dumps([self.offset, self.mark, self.attempt, {_ANY: max(self.floor.values())}])

    @classmethod
    def from_tag(cls, text: str | None, latest: Mapping[str, int]) -> Self:
        """What a tag says. Without a readable one the file is read from its start, and only points beyond
        `latest` (MLflow's last step of each metric) count as new."""
        try:
            offset, mark, attempt, floor = json.loads(text or "")
            return cls(int(offset), int(mark), int(attempt), dict(floor), dict(latest))
        except (ValueError, TypeError):
            return cls(latest=dict(latest))

    def new_points(self, row: Mapping[str, Any], start: datetime) -> list[Point]:
        """The points of a row that no earlier attempt has sent; takes the row as the next one."""
        attempt = as_int(row.get("attempt")) or 1
        if attempt != self.attempt:
            self.attempt, self.floor = attempt, dict(self.latest)
        everywhere = self.floor.get(_ANY, -1)
        points = [p for p in row_points(row, start) if p.step > self.floor.get(p.name, everywhere)]
        for point in points:
            self.latest[point.name] = max(point.step, self.latest.get(point.name, -1))
        return points

    def follow(self, path: Path) -> int:
        """The byte to read on from: 0 again when the file no longer is the one that was sent."""
        if self.offset and self.mark != mark_before(path, self.offset):
            # The attempt is forgotten too, so that everything sent so far becomes the floor.
            self.offset, self.attempt = 0, 0
        return self.offset


def mark_before(path: Path, offset: int) -> int:
    """Checksum of the last bytes before `offset`; 0 at the start, -1 when the file is shorter."""
    if offset == 0:
        return 0
    begin = max(0, offset - _MARK_BYTES)
    try:
        with path.open("rb") as file:
            file.seek(begin)
            data = file.read(offset - begin)
    except FileNotFoundError:
        return -1
    return zlib.crc32(data) if len(data) == offset - begin else -1
