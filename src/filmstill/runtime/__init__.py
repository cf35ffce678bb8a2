"""The process and its files: ranks, randomness, exit codes, progress, atomic files, images, videos, GPUs."""
