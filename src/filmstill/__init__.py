"""filmstill distils a video diffusion teacher into a causal student that streams."""

import time

# When this process began to read filmstill's sources (seconds since the epoch): a younger source is not what runs.
BEGAN = time.time()
