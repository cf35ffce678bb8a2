"""filmstill distils a video diffusion teacher into a causal student that streams."""
