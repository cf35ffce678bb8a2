"""Objectives and the three training loops."""
