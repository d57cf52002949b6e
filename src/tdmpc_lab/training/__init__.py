"""The training loop: knows the agent and the environments, nothing of SLURM, MLflow or notes.

It takes a metric sink, a checkpoint store and a stop flag, and tells what happens through an event callback.
"""
