"""Starting jobs: on this machine, in SLURM, or in this process. The only package that imports submitit."""
