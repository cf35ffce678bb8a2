"""Paths of the stages' artifacts, relative to the repository's root; dvc.yaml lists the same paths."""

from pathlib import Path

TRAIN_PROMPTS = Path("data/prompts/train.parquet")
EVAL_PROMPTS = Path("data/prompts/eval.parquet")
TEACHER = Path("data/teacher/teacher.safetensors")
REAL_SCORE = Path("data/teacher/real_score")
CODEC = Path("data/teacher/codec.safetensors")
TEXT = Path("data/teacher/text")
PAIRS = Path("data/ode_pairs")
INIT = Path("data/ode_init/init.safetensors")
STUDENT = Path("data/distill/student.safetensors")
SAMPLES = Path("data/samples")
RESULTS = Path("data/evaluate")

PROMPT_CACHE = Path(".cache/prompts")  # encoded prompts; not an artifact: a missing one is encoded again
