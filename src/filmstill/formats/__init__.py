"""Other people's checkpoints: recognised, checked, imported and exported."""
