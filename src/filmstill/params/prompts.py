"""Parameters of the prompts stage."""

from dataclasses import dataclass, field

from filmstill.errors import require


@dataclass
class MaxScores:
    """Highest score kept, by VidProM's column (Detoxify probabilities); null: that column is not looked at."""

    toxicity: float | None = 0.2
    obscene: float | None = 0.2
    identity_attack: float | None = 0.2
    insult: float | None = 0.2
    threat: float | None = 0.2
    sexual_explicit: float | None = 0.2

    def __post_init__(self) -> None:
        for name, limit in vars(self).items():
            require(limit is None or 0 <= limit <= 1, name, limit, "null or a number in [0, 1]")


@dataclass
class NearDuplicates:
    """When a prompt counts as a copy of an earlier one (prompts/duplicates.py says why these values)."""

    jaccard: float = 0.8  # share of common shingles from which two prompts are copies
    shingle_words: int = 2  # words a shingle
    num_perm: int = 128  # MinHash permutations

    def __post_init__(self) -> None:
        require(0 < self.jaccard <= 1, "jaccard", self.jaccard, "a number in (0, 1]")
        require(self.shingle_words > 0, "shingle_words", self.shingle_words, "a positive integer")
        require(16 <= self.num_perm <= 1024, "num_perm", self.num_perm, "an integer in [16, 1024]")


@dataclass
class Prompts:
    """From a raw prompt table to clean train and eval prompts."""

    raw: str = "data/prompts/raw.csv"  # VidProM-shaped CSV, or a .txt with one prompt a line
    min_characters: int = 8
    max_characters: int = 1500
    min_latin_share: float = 0.9  # of a prompt's letters
    max_scores: MaxScores = field(default_factory=MaxScores)  # for a CSV; a text file has no scores
    unsafe_words: str = "data/prompts/unsafe_words.txt"  # one word or phrase a line
    near_duplicates: NearDuplicates = field(default_factory=NearDuplicates)
    world: str | None = "digits"  # keep what this world can show; null: keep everything
    extension: str = "data/prompts/extension.csv"  # columns prompt and text, the longer prompt; rows are optional
    eval_share: float = 0.15  # of the prompts, by hash

    def __post_init__(self) -> None:
        require(bool(self.raw), "raw", self.raw, "the path of a prompt table")
        require(self.min_characters > 0, "min_characters", self.min_characters, "a positive integer")
        allowed = f"min_characters ({self.min_characters}) to 30000"
        require(self.min_characters <= self.max_characters <= 30000, "max_characters", self.max_characters, allowed)
        require(0 <= self.min_latin_share <= 1, "min_latin_share", self.min_latin_share, "a number in [0, 1]")
        require(self.world in ("digits", None), "world", self.world, "digits or null")
        require(0 < self.eval_share < 1, "eval_share", self.eval_share, "a number in (0, 1)")
