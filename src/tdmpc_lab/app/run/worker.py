"""The job itself: what runs on the node, whichever launcher started it.

The order of things at the end is on purpose: first the outcome in the job's own events, then the note, then
MLflow. A note or a store that fails costs a warning, never the job.
"""

from __future__ import annotations

import faulthandler
import os
import platform
import socket
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tdmpc_lab.app.joblog.write import mlflow_description, refresh_rollup, write_array_note, write_note
from tdmpc_lab.app.mlflow.mirror import RUN_STATUS, run_end, run_files, start_mirror
from tdmpc_lab.app.run.failure import (
    cannot_begin,
    cause_of,
    disk_is_full,
    free_reserve,
    keep_reserve,
    let_go_of,
    why_of,
)
from tdmpc_lab.app.run.stopping import TERMINATED_CODE, ending, signals_to
from tdmpc_lab.app.run.watchdog import Watchdog
from tdmpc_lab.config.loader import load_resolved
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.errors import AttemptLostError, LabError, TrainingError
from tdmpc_lab.jobs.events import EventLog, event_text, read_events, read_requests
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord, read_record
from tdmpc_lab.jobs.state import SchedulerState, State
from tdmpc_lab.jobs.unsent import Unsent, all_is_sent, mark_unsent
from tdmpc_lab.launch.attempts import AttemptLease
from tdmpc_lab.launch.process import process_mark
from tdmpc_lab.launch.sbatch import REQUEUE_CODE, attempt_start
from tdmpc_lab.launch.slurm import running_id
from tdmpc_lab.sharing import share_new_files
from tdmpc_lab.streams import write_utf8
from tdmpc_lab.tracking.mirror import MlflowMirror
from tdmpc_lab.tracking.store import sends_itself
from tdmpc_lab.training.stop import StopFlag

if TYPE_CHECKING:
    from tdmpc_lab.training.checkpoints import CheckpointStore
    from tdmpc_lab.training.loop import Trainer, TrainResult
    from tdmpc_lab.training.metrics import JsonlSink, Row
    from tdmpc_lab.training.progress import Progress


RUNNING = SchedulerState("RUNNING")
LOST_CODE = 87
CLOSE_S, CLOSE_SOON_S = 120.0, 20.0  # the latter is short of what SLURM gives before it kills


def run_job(root: str, job_id: str | None = None) -> dict[str, Any]:
    """Run the job `job_id` of the project at `root`; without an id, the SLURM job this process belongs to.

    Continues from the last checkpoint if there is one. Returns `{"step", "stopped"}`.

    Raises:
        LabError and whatever the training raises, after the outcome is on file.
        SystemExit: in a SLURM job that was stopped; the batch script does what the code asks for.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") != "debug":  # there, the terminal's
        write_utf8()
        faulthandler.enable()  # log.err says where the process was when a signal such as SIGSEGV ended it
    stop = StopFlag()
    with signals_to(stop):  # first of all: a signal that nobody expects ends the process
        project = Project(Path(root))
        share_new_files(project.root)
        job_id = job_id or running_id()
        if job_id is None:
            raise LabError("this process is in no SLURM job (SLURM_JOB_ID is not set), and no job id was given")
        try:
            return _Run(project, project.job(job_id), stop).run()
        finally:
            let_go_of(sys.stdout)
            let_go_of(sys.stderr)


class _Run:
    """One attempt of one job."""

    def __init__(self, project: Project, paths: JobPaths, stop: StopFlag) -> None:
        self.project, self.paths, self.stop = project, paths, stop
        self.record = read_record(paths)
        started = sum(e.get("event") == "started" for e in read_events(paths.events))
        try:
            self.lease = AttemptLease.claim(paths.attempts, 1 + started)
        except OSError as error:
            raise cannot_begin(paths, error) from error
        self.attempt = self.lease.number
        self.log = EventLog(paths.events, guard=self.lease.guard)
        self.mirror: MlflowMirror | None = None
        self.progress: Progress | None = None
        self.trainer: Trainer | None = None

    def run(self) -> dict[str, Any]:
        """Train, and put the outcome on file whatever happens, unless a later attempt has taken over."""
        self.lease.on_lost(self._lost)
        try:
            if not self.lease.wait(give_up=lambda: self.stop):
                self._leave()
            return self._run()
        except AttemptLostError as error:
            print(f"{error}; this process ends", file=sys.stderr, flush=True)
            raise SystemExit(LOST_CODE) from error
        finally:
            self.lease.release()

    def _leave(self) -> NoReturn:
        """Exit without recording an outcome: stopped while an earlier attempt lived, or another one owns the job."""
        with self.lease.guard():
            raise SystemExit(REQUEUE_CODE if self.stop.reason == "SIGUSR2" else TERMINATED_CODE)

    def _lost(self, winner: int) -> None:
        """In the lease's thread: training stops at its next step, and MLflow is left to the winner."""
        self.stop.set(f"attempt {winner} has taken over")
        if self.mirror is not None:
            self.mirror.abandon()

    def _run(self) -> dict[str, Any]:
        keep_reserve(self.paths)
        self.log.append(
            "started",
            host=node_name(self.record),
            pid=os.getpid(),
            process=process_mark(os.getpid()),
            attempt=self.attempt,
            job=self.record.id,
            python=platform.python_version(),
        )
        self._write_note()
        self._write_array_note()
        try:
            result = self._train()
        except AttemptLostError:
            raise
        except BaseException as error:
            self._failed(error)
            raise
        if result.stopped is None:
            self.log.append("finished", step=result.step, attempt=self.attempt)
            self._finish(State.COMPLETED)
        else:
            self._stopped(result.stopped, result.step)
        return {"step": result.step, "stopped": result.stopped}

    def _failed(self, error: BaseException) -> None:
        """The outcome of an error, with the space kept for it where the disk is full."""
        if disk_is_full(error):
            free_reserve(self.paths)
        try:
            self.log.append(
                "failed",
                cause=cause_of(error),
                error=type(error).__name__,
                **({} if (why := why_of(error)) is None else {"why": why.value}),
                traceback="".join(traceback.format_exception(error)),
                step=None if self.trainer is None else self.trainer.step,
                attempt=self.attempt,
            )
            self._finish(State.FAILED)
        except OSError as problem:  # nothing can be written: the error itself is to be seen, in the log
            print(f"the outcome could not be put on file: {problem}", file=sys.stderr, flush=True)

    def _hung(self, what: str) -> NoReturn:
        """In the watchdog's thread: the training's thread does not come back, so the process ends from here."""
        try:
            self._failed(TrainingError(what))
            self.lease.release()
            print(f"{what}; this process ends", file=sys.stderr, flush=True)
        finally:
            os._exit(1)

    def _stopped(self, reason: str, step: int) -> None:
        """After the checkpoint: what the stop means, on file and for the batch script."""
        spec = load_resolved(self.paths.resolved)
        now = datetime.now().astimezone()
        events, requests = read_events(self.paths.events), read_requests(self.paths)
        end = ending(reason, self.record, spec.slurm, events, requests, now, attempt_start(os.environ))
        self.log.append(end.event, **end.fields, step=step, attempt=self.attempt)
        if end.event == "preempted":
            self._finish(
                None, SchedulerState("PENDING", f"{end.fields['why']} at step {step:,}; to continue from there")
            )
        else:
            self._finish(State.CANCELLED)
        if end.exit_code is not None:
            raise SystemExit(end.exit_code)

    def _train(self) -> TrainResult:
        from tdmpc_lab.app.agents.opponents import frozen_opponents
        from tdmpc_lab.training.build import Places, build_trainer, hardware
        from tdmpc_lab.training.checkpoints import CheckpointStore
        from tdmpc_lab.training.metrics import JsonlSink
        from tdmpc_lab.training.progress import make_progress
        from tdmpc_lab.training.system import SystemSink, gpu_sampler

        spec = load_resolved(self.paths.resolved)
        store = CheckpointStore(self.paths.checkpoints, guard=self.lease.guard)
        sink = JsonlSink(self.paths.metrics, self.lease.guard)
        rows = SystemSink(sink)
        in_person = self.record.cluster == "debug"
        self.progress = make_progress({self.record.experiment: spec.train.steps}, None if in_person else sys.stdout)
        try:
            trainer = self.trainer = build_trainer(
                spec,
                sink=rows,
                places=Places(
                    store, self.paths.videos, self.paths.pool, frozen_opponents(self.paths), self.lease.guard
                ),
                stop=self.stop,
                observe=self._observe,
                on_event=self._on_event,
                attempt=self.attempt,
            )
            ready = hardware(trainer)
            self._compare_kernels(ready.kernels)
            self.log.append("ready", **asdict(ready))
            self.progress.message(
                self.record.experiment,
                f"training on {ready.device}; {ready.replay}; {ready.precision}; planning and updates: {ready.kernels}",
            )
            if ready.gpu is not None:
                rows.watch(gpu_sampler(trainer.agent.device))
            with Watchdog(spec.train.env_timeout, self._hung):
                self._resume(trainer, store, sink)
                self._tell_precision(trainer, ready.precision)
                self._start_mirror(spec)
                self._write_note()  # now with its GPU
                return trainer.run()
        finally:
            self.progress.close()
            rows.close()

    def _tell_precision(self, trainer: Trainer, before: str) -> None:
        """A checkpoint of this machine brings back what had been chosen when it was made."""
        if (now := str(trainer.agent.precision)) != before:
            self._on_event("precision", {"message": now})

    def _compare_kernels(self, kernels: str) -> None:
        """Other kernels than the last attempt's round otherwise: what follows is not to the last bit what it was."""
        before = [e.get("kernels") for e in read_events(self.paths.events) if e.get("event") == "ready"]
        if before and before[-1] is not None and before[-1] != kernels:
            self._warn(f"this attempt computes by {kernels}, the one before by {before[-1]}")

    def _resume(self, trainer: Trainer, store: CheckpointStore, sink: JsonlSink) -> None:
        from tdmpc_lab.training.saving import rows_there

        store.sweep()
        state = store.load_latest(rows_there(sink))
        for problem in store.skipped:
            self._warn(f"checkpoint passed over: {problem}")
        if state is not None:
            trainer.load_state_dict(state)
        else:
            sink.rewind(0)  # what an attempt that never saved has logged is done again
            self._begin_with(trainer)

    def _begin_with(self, trainer: Trainer) -> None:
        """The agent that `train.start_from` named at submit, where it named one: at step 0, with an empty replay."""
        from tdmpc_lab.training.load import load_start

        if trainer.config.start_from is None:
            return
        step, optimizers = load_start(self.paths.start, trainer.agent)
        told = self.record.start_from or {"agent": str(trainer.config.start_from), "job": None}
        self._on_event("start_from", {**told, "step": step, "optimizers": optimizers})

    def _start_mirror(self, spec: Spec) -> MlflowMirror | None:
        """None where MLflow is left to `sync`, or can't be told from here: training continues all the same."""
        try:
            live = sends_itself(self.project.root, self.record.cluster)
            mark_unsent(self.project, self.paths.id, Unsent("live" if live else "later"))
            if not live:
                return None
            self.mirror = start_mirror(self.project, self.paths, self.record, spec, log=self.log)
        except (LabError, OSError) as error:
            self._warn(f"MLflow was not told: {error}; when that is mended: tdmpc-lab sync {self.paths.id}")
            return None
        if self.lease.lost_to is not None:  # it was lost before there was anything to abandon
            self.mirror.abandon()
        return self.mirror

    def _observe(self, row: Row) -> None:
        if self.progress is not None:
            self.progress.row(self.record.experiment, row)
        if row["split"] == "eval":
            self._write_note()

    def _on_event(self, kind: str, fields: Mapping[str, Any]) -> None:
        self.log.append(kind, **fields)
        if self.progress is not None and (text := event_text(kind, fields)):
            self.progress.message(self.record.experiment, text)

    def _warn(self, message: str) -> None:
        self._on_event("warning", {"message": message})

    def _write_note(self, scheduler: SchedulerState = RUNNING) -> str | None:
        try:
            with self.lease.guard():
                note = write_note(self.project, self.paths, scheduler)
        except AttemptLostError:
            raise
        except LabError as error:
            self._warn(f"the note was not written: {error}")
            return None
        if self.mirror is not None:
            self.mirror.set_description(mlflow_description(self.paths, scheduler, note))
        return note

    def _finish(self, state: State | None, scheduler: SchedulerState = RUNNING) -> None:
        """Note and MLflow after the outcome; their troubles are put on file and change nothing.

        `state` None: the job continues later, and so does its run.
        """
        self._write_note(scheduler)
        self._write_array_note()
        if state is not None:
            refresh_rollup(self.project)
            free_reserve(self.paths)
        try:
            mirror = self.mirror or self._start_mirror(load_resolved(self.paths.resolved))
        except LabError as error:  # it failed before training began, and its spec can't be read either
            self._warn(f"MLflow was not told: {error}")
            return
        if mirror is None:
            return
        wait_s = CLOSE_S if state is not None else CLOSE_SOON_S
        status = None if state is None else RUN_STATUS[state]
        report = mirror.close(status, ended=run_end(self.paths), files=run_files(self.paths), timeout_s=wait_s)
        if report.problem is not None:
            self._warn(f"MLflow is not complete: {report.problem}")
        elif state is not None:
            all_is_sent(self.project, self.paths.id)
        self._write_note(scheduler)  # again: only now the run's id is sure to be known

    def _write_array_note(self) -> None:
        """The line of this job in the note of its array. Evaluations are left to the job's own note."""
        if self.record.array_id is None:
            return
        try:
            write_array_note(self.project, self.record.array_id)
        except LabError as error:
            self._warn(f"the note of array {self.record.array_id} was not written: {error}")


def node_name(record: JobRecord) -> str:
    """The machine this attempt runs on, as SLURM calls it where SLURM started it."""
    own_name = os.environ.get("SLURMD_NODENAME") if record.cluster == "slurm" else None
    return own_name or socket.gethostname()
