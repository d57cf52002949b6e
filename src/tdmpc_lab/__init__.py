"""tdmpc-lab: YAML experiment specs → TD-MPC2 jobs on SLURM or this machine → MLflow runs and job notes."""

__version__ = "0.1.0"
