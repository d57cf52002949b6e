"""The notes: written by jobs, caught up for those that were killed, edited, listed, imported."""
