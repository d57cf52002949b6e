"""MLflow: where its store is, one run per job, and the mirror that fills it from the job's own files.

The only package that imports mlflow, and only inside functions: the import takes seconds.
"""
