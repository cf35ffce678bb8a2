"""Where work runs: this machine, or a SLURM cluster. The site's business, never part of an experiment's key."""
