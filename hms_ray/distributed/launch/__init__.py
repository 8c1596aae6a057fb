"""Launch files: what starts a sweep on Kubernetes, Slurm, AWS, Google Cloud or a list of machines.

May import every room below ``distributed``, but not ray: a file is written without a cluster. One
module per system; ``plan`` has what they share.
"""
