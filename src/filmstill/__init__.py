"""filmstill distils a bidirectional video diffusion teacher into a causal student that streams."""

import time

# Time of this process's first filmstill import, in seconds since the epoch. A source file modified later may differ
# from the code that this process runs.
BEGAN = time.time()
