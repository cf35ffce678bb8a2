"""Streaming a student: from the command line."""
