"""digits-bench: dimensions, scores, report."""
