"""MLflow runs: filled while a job runs, brought in sync with its folder later, shown in the browser."""
