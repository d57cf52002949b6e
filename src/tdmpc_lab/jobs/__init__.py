"""The job folder `jobs/<job id>/`: its files, the record written at submit, events, metrics, the state.

Standard library only: every command reads jobs, and none should wait for torch or MLflow to be imported.
"""
