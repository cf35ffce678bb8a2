"""Values of `generate`'s options that its --help names. Does not import torch, which takes seconds."""

ENDLESS = "endless"  # as --frames: a stream that only its reader ends
FITS = ("crop", "pad")  # how a picture of another shape becomes one of the student's
MOST_FRAMES = 10**9  # latent frames of a stream that ends
PIPE = "-"  # as --out: the standard output
