"""The name under which the pickles of jobs that were submitted before find the worker: they wait in the queue for days."""

from tdmpc_lab.app.run.worker import run_job

__all__ = ["run_job"]
