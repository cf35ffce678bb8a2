"""Streaming from a distilled student, and the command that writes its videos."""
