"""Training: the loop, what trains in it, and what the stages of the student share."""
