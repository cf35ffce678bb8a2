"""Evaluation of the samples: evaluate.py runs a bench, and draws tables, plots, sheet and page from its measurement."""
