"""Prompts: from a raw table to clean, safe, distinct prompts that a world can show."""
