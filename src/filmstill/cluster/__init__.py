"""Where work runs: on this machine or as SLURM jobs. Nothing here is part of a stage's key."""
