"""The competition's own format and nothing else."""
