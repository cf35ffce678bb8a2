"""The embedded world: its clips, the English of its prompts, and the judge of its clips."""
