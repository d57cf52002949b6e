"""Every file name of a job and of a project, in one place; finding the project."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from tdmpc_lab.errors import UsageError
from tdmpc_lab.jobs.ids import ID_HELP, is_job_id
from tdmpc_lab.sharing import whose

ROOT_VARIABLE = "TDMPC_LAB_ROOT"
RECORD, EVENTS, METRICS = "job.json", "events.jsonl", "metrics.jsonl"
_SHORTHAND_LENGTH = 4  # shorter than this is a slip of the keyboard, not a choice
_SHOWN = 3


@dataclass(frozen=True)
class JobPaths:
    """The files of one job. `folder` may not exist yet."""

    folder: Path

    @property
    def id(self) -> str:
        """The job id: the folder's name."""
        return self.folder.name

    @property
    def spec(self) -> Path:
        """The spec as the user wrote it."""
        return self.folder / "spec.yaml"

    @property
    def resolved(self) -> Path:
        """Every value in force; what runs."""
        return self.folder / "resolved.yaml"

    @property
    def record(self) -> Path:
        """What was known at submit. Written last: a folder without it is no job (yet)."""
        return self.folder / RECORD

    def text(self, name: str) -> str:
        """The path of RECORD, EVENTS or METRICS as a text, for who reads thousands: to make a Path takes as long as to
        read a short file."""
        return f"{self.folder}/{name}"

    @property
    def code_diff(self) -> Path:
        """How the code differed from its git commit at submit; missing where it did not."""
        return self.folder / "code.diff"

    @property
    def events(self) -> Path:
        """What happened to the job, by itself."""
        return self.folder / EVENTS

    @property
    def metrics(self) -> Path:
        """Training and evaluation rows, by the job itself."""
        return self.folder / METRICS

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def checkpoint_step(self) -> int:
        """Step of the last checkpoint; 0 where there is none."""
        steps = (int(path.stem.removeprefix("step_")) for path in self.checkpoints.glob("step_*.pt"))
        return max(steps, default=0)

    @property
    def videos(self) -> Path:
        """Folder of the videos of evaluation episodes."""
        return self.folder / "videos"

    @property
    def curve(self) -> Path:
        """The learning curve as a picture."""
        return self.folder / "curve.png"

    @property
    def pool(self) -> Path:
        """Folder of the agent's past copies, which it plays against."""
        return self.folder / "pool"

    @property
    def opponents(self) -> Path:
        """Folder of the opponents that are agents, as they were at submit."""
        return self.folder / "opponents"

    @property
    def start(self) -> Path:
        """The agent that the training begins with, as it was at submit; in a folder of its own, as an exported one."""
        return self.folder / "start" / "agent.pt"

    @property
    def evals(self) -> Path:
        """What `eval` found after the training, one row per opponent."""
        return self.folder / "evals.jsonl"

    @property
    def log_out(self) -> Path:
        """Standard output of the job's process."""
        return self.folder / "log.out"

    @property
    def log_err(self) -> Path:
        """Standard error of the job's process."""
        return self.folder / "log.err"

    @property
    def attempts(self) -> Path:
        """Folder of the attempts' heartbeats."""
        return self.folder / ".attempts"

    @property
    def requests(self) -> Path:
        """What a user asked for, by the command line."""
        return self.folder / "requests.jsonl"

    @property
    def reserve(self) -> Path:
        """Space kept for the outcome of a job whose disk is full."""
        return self.folder / ".reserve"

    @property
    def note_lock(self) -> Path:
        """Held while the job's note is rewritten."""
        return self.folder / ".note.lock"


@dataclass(frozen=True)
class Project:
    """A folder that holds `experiments/`, and beside it what the tool makes."""

    root: Path

    @property
    def experiments(self) -> Path:
        """The specs."""
        return self.root / "experiments"

    @property
    def jobs(self) -> Path:
        """One folder per job."""
        return self.root / "jobs"

    @property
    def snapshots(self) -> Path:
        """The code that jobs run, as it was when they were submitted: one folder per state."""
        return self.jobs / ".snapshots"

    @property
    def notes(self) -> Path:
        """The job log: one Markdown file per job."""
        return self.root / "notes"

    @property
    def rollup(self) -> Path:
        """The whole job log in one file, made from the notes."""
        return self.notes / "JOBS.md"

    @property
    def imported_logs(self) -> Path:
        """Folder of the hand-written logs that were imported: what of them belongs to no job."""
        return self.notes / "imported"

    @property
    def notes_lock(self) -> Path:
        """Held while a note that has no job folder is changed."""
        return self.jobs / ".notes.lock"

    @property
    def rollup_lock(self) -> Path:
        """Held while the roll-up is made from the notes."""
        return self.jobs / ".rollup.lock"

    @property
    def rollup_copy(self) -> Path:
        """The roll-up as the tool wrote it last: tells what a user has added since."""
        return self.jobs / ".rollup.md"

    @property
    def submit_lock(self) -> Path:
        """Held while jobs are recorded: of two identical submits the second is to see the first."""
        return self.jobs / ".submit.lock"

    @property
    def ui_lock(self) -> Path:
        """Held by the MLflow server that `ui` became, as long as it lives; says where it is."""
        return self.jobs / ".ui.lock"

    @property
    def unsent(self) -> Path:
        """Marks of the jobs that MLflow may lack something of, one file each."""
        return self.jobs / ".unsent"

    @property
    def sync_lock(self) -> Path:
        """Held while MLflow is brought in sync with the job folders."""
        return self.jobs / ".sync.lock"

    @property
    def mlruns(self) -> Path:
        """The MLflow store, unless MLFLOW_TRACKING_URI names another."""
        return self.root / "mlruns"

    def job(self, job_id: str) -> JobPaths:
        """The paths of a job, which need not exist. Raises UsageError for what can't be a job id."""
        if not is_job_id(job_id):
            raise UsageError(f"{job_id!r} is no job id: {ID_HELP}")
        return JobPaths(self.jobs / job_id)

    def note(self, job_id: str) -> Path:
        """The note of a job. Raises UsageError for what can't be a job id."""
        return self.notes / f"{self.job(job_id).id}.md"

    def plot(self, job_id: str) -> Path:
        """The picture of a job's curve, beside its note. Raises UsageError for what can't be a job id."""
        return self.notes / "plots" / f"{self.job(job_id).id}.svg"


def find_project(start: Path | None = None) -> Project:
    """The project: the nearest folder at or above `start` (default: the working directory) that holds a
    folder `experiments`. The variable TDMPC_LAB_ROOT overrides the search.

    Raises UsageError when there is none, or when TDMPC_LAB_ROOT names no folder.
    """
    override = os.environ.get(ROOT_VARIABLE)
    if override:
        root = Path(override).expanduser().absolute()
        if not root.is_dir():
            raise UsageError(f"{ROOT_VARIABLE}={override} is no folder; set it to the project's, or unset it")
        return Project(root)
    here = (start or Path.cwd()).resolve()
    denied: list[Path] = []
    for folder in (here, *here.parents):
        try:
            if stat.S_ISDIR((folder / "experiments").stat().st_mode):
                return Project(folder)
        except PermissionError:
            denied.append(folder)
        except OSError:
            continue
    unseen = "".join(f"; {folder} can't be looked into: {whose(folder)}" for folder in denied)
    raise UsageError(
        f"no project at or above {here}: a project is a folder that holds a folder 'experiments'; "
        f"go there, make it (tdmpc-lab init), or set {ROOT_VARIABLE}{unseen}"
    )
