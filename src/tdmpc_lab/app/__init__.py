"""One function per command, and the worker: the only place that joins a job to training, tracking and its note."""
