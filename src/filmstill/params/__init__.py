"""What every key of params.yaml means: one dataclass a section, each beside nothing it does not need."""
