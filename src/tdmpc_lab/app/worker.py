"""Where jobs that were submitted before look for the worker: their pickles name it, and they wait for days."""

from tdmpc_lab.app.run.worker import run_job

__all__ = ["run_job"]
