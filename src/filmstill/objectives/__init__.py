"""Losses of each training method, a file per method."""
