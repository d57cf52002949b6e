"""From a spec on the command line to jobs that are recorded and started."""
