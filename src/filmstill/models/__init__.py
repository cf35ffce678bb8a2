"""The networks: video transformer, text encoder, codec."""
