"""The report, as JSON for programs and as Markdown for people: whole at any moment, whatever ends the check."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from tdmpc_lab.files import write_atomic
from tdmpc_lab.text import duration

FORMAT = 1
JSON, MARKDOWN = "report.json", "report.md"
State = Literal["waiting", "running", "ok", "failed", "timed out", "left out"]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class Stage:
    """One thing that is tried, and what came of it."""

    name: str
    what: str
    limit_s: float
    state: State = "waiting"
    said: str = ""
    """One line: the result, or why there is none."""
    seconds: float | None = None
    last_lines: list[str] = field(default_factory=list)
    """Of what it printed, where it did not end well."""
    log: str | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Of the table of speeds."""


@dataclass
class Report:
    """What is known so far. `save` writes it, each file in one step."""

    folder: Path
    device: str
    machine: dict[str, Any]
    stages: list[Stage]
    started: str = field(default_factory=_now)
    finished: str | None = None

    @property
    def bad(self) -> list[Stage]:
        """Stages that did not end well, those among them that were never begun."""
        return [stage for stage in self.stages if stage.state != "ok"]

    @property
    def verdict(self) -> str:
        """One word: `running` until the check is over."""
        if self.finished is None:
            return "running"
        return "failed" if self.bad else "good"

    def save(self) -> None:
        """Write both files."""
        write_atomic(self.folder / JSON, json.dumps(self.as_dict(), indent=1).encode() + b"\n")
        write_atomic(self.folder / MARKDOWN, self.as_markdown().encode())

    def finish(self) -> None:
        """Nothing more will come."""
        self.finished = _now()
        self.save()

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "format": FORMAT,
            "verdict": self.verdict,
            "device": self.device,
            "started": self.started,
            "finished": self.finished,
            "machine": self.machine,
            "stages": [asdict(stage) for stage in self.stages],
        }

    def as_markdown(self) -> str:
        """For people."""
        machine = self.machine
        gpu = f"{machine['gpu']} (compute capability {machine['capability']}, {machine['memory_gib']} GiB)"
        lines = [
            f"# GPU check: {self.verdict}",
            "",
            f"- {gpu if machine['gpu'] else 'no GPU: tried on the CPU'}",
            f"- torch {machine['torch']}, CUDA {machine['cuda'] or '–'}, cuDNN {machine['cudnn'] or '–'}, "
            f"Python {machine['python']}, {machine['cpus']} CPUs",
            f"- code {machine['code']}",
            f"- started {self.started}, " + (f"finished {self.finished}" if self.finished else "not finished"),
            "",
            "| stage | what | result | time |",
            "| --- | --- | --- | --- |",
        ]
        for stage in self.stages:
            said = f"{stage.state}: {stage.said}" if stage.said else stage.state
            took = "" if stage.seconds is None else duration(stage.seconds)
            lines.append(f"| {stage.name} | {_cell(stage.what)} | {_cell(said)} | {took} |")
        rows = [row for stage in self.stages for row in stage.rows]
        if rows:
            lines += ["", *_speeds(rows)]
        for stage in self.stages:
            if stage.last_lines:
                where = f" (all of it: `{stage.log}`)" if stage.log else ""
                lines += ["", f"## {stage.name}: the last lines{where}", "", "```", *stage.last_lines, "```"]
        return "\n".join(lines) + "\n"


def _speeds(rows: list[dict[str, Any]]) -> list[str]:
    """Median (fastest–slowest) in milliseconds."""
    lines = [
        "Milliseconds: median (fastest–slowest). Peak GPU memory: allocated by tensors, and reserved by torch.",
        "",
        "| agent | horizon | mode | plan | update | peak MiB | precision | kernels |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        plan, update = (
            f"{row[f'{name}_ms']:.2f} ({row[f'{name}_ms_min']:.2f}–{row[f'{name}_ms_max']:.2f})"
            for name in ("plan", "update")
        )
        peak = "–" if row["peak_allocated_mib"] is None else f"{row['peak_allocated_mib']}, {row['peak_reserved_mib']}"
        agent = f"{row['agent']} ({row['parameters']:,} parameters, {row['envs']} envs, batch {row['batch_size']})"
        cells = (agent, row["horizon"], row["mode"], plan, update, peak, row["precision_reason"], row["kernels"])
        lines.append("| " + " | ".join(_cell(str(cell)) for cell in cells) + " |")
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
