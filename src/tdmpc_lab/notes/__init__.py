"""The job log: what the tool writes into a job's note, and how it leaves a user's words alone."""
