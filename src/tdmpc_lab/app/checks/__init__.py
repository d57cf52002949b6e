"""What is checked and estimated before a job is submitted."""
