"""The job's own process, from its start on the node to its outcome."""
