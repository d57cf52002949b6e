"""A real SLURM on one machine, for tests and for trying things out. Standard library only."""
