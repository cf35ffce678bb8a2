"""Checkpoints of other projects: recognising, checking, importing and converting them."""
