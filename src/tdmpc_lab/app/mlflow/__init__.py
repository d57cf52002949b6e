"""MLflow runs: filled while a job runs, brought in line with its folder later, shown in the browser."""
