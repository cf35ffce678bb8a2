"""Networks only: video transformer, attention, KV cache, text encoders, codecs, sharding, operation counts."""
