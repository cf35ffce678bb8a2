"""params.yaml: one file per section (a dataclass with a sentence per key), the schema of the whole, the profiles."""
