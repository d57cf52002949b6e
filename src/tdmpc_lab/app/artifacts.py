"""What a job's MLflow run gets as artifacts at its end."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from tdmpc_lab.config.loader import load_resolved
from tdmpc_lab.errors import LabError
from tdmpc_lab.files import write_atomic
from tdmpc_lab.jobs.metrics import eval_rows
from tdmpc_lab.jobs.paths import JobPaths
from tdmpc_lab.jobs.record import read_record
from tdmpc_lab.jobs.variants import variant_name


def run_files(paths: JobPaths) -> dict[str, Path]:
    """The files of a job by the name that they get: specs, learning curve and videos; the last checkpoint where
    `mlflow.checkpoint` is on. Never raises: a picture that can't be drawn is left out, and said on standard error."""
    videos = sorted(paths.videos.glob("*.mp4"))
    # At the root: MLflow's page that compares runs shows only what lies there.
    shown = {"video.mp4": videos[-1:], "curve.png": [*filter(None, [draw_curve(paths)])]}
    files = {
        "spec.yaml": paths.spec,
        "resolved.yaml": paths.resolved,
        **{name: found[0] for name, found in shown.items() if found},
        **{f"videos/{video.name}": video for video in videos},
        **{f"checkpoints/{file.name}": file for file in _checkpoint(paths)},
    }
    return {name: path for name, path in files.items() if path.is_file()}


def draw_curve(paths: JobPaths) -> Path | None:
    """The job's learning curve in its folder, drawn anew where evaluations came since; None where it has none yet."""
    try:
        if paths.curve.exists() and paths.curve.stat().st_mtime >= paths.metrics.stat().st_mtime:
            return paths.curve
        from tdmpc_lab.report.curve_plot import curve_png

        record = read_record(paths)
        names = dict.fromkeys([record.experiment, variant_name(record), f"seed {record.seed}", record.id])
        picture = curve_png(eval_rows(paths), " · ".join(names))
        if picture is None:
            return None
        write_atomic(paths.curve, picture)
    except Exception as error:  # noqa: BLE001 - whatever the drawing raises, the job's outcome is on file already
        print(f"the learning curve was not drawn: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return None
    return paths.curve


def _checkpoint(paths: JobPaths) -> list[Path]:
    """The last checkpoint, where it is wanted and there is one."""
    with contextlib.suppress(LabError):  # an unreadable config is told elsewhere
        if load_resolved(paths.resolved).mlflow.checkpoint:
            return sorted(paths.checkpoints.glob("step_*.pt"))[-1:]
    return []
