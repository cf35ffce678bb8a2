"""The section `prompts` of params.yaml."""

from dataclasses import dataclass, field

from filmstill.errors import require
from filmstill.params.keys import key
from filmstill.params.world import DIGITS


@dataclass
class MaxScores:
    """Limits of VidProM's score columns (Detoxify probabilities)."""

    toxicity: float | None = key(0.2, "highest toxicity score kept; null: not checked")
    obscene: float | None = key(0.2, "highest obscene score kept; null: not checked")
    identity_attack: float | None = key(0.2, "highest identity attack score kept; null: not checked")
    insult: float | None = key(0.2, "highest insult score kept; null: not checked")
    threat: float | None = key(0.2, "highest threat score kept; null: not checked")
    sexual_explicit: float | None = key(0.2, "highest sexual explicit score kept; null: not checked")

    def __post_init__(self) -> None:
        for name, limit in vars(self).items():
            require(limit is None or 0 <= limit <= 1, name, limit, "null or a number in [0, 1]")


@dataclass
class NearDuplicates:
    """When a prompt counts as a copy of an earlier one (prompts/duplicates.py explains the values)."""

    jaccard: float = key(0.8, "share of common shingles from which two prompts are copies")
    shingle_words: int = key(2, "words per shingle")
    num_perm: int = key(128, "MinHash permutations")

    def __post_init__(self) -> None:
        require(0 < self.jaccard <= 1, "jaccard", self.jaccard, "a number in (0, 1]")
        require(self.shingle_words > 0, "shingle_words", self.shingle_words, "a positive integer")
        require(16 <= self.num_perm <= 1024, "num_perm", self.num_perm, "an integer in [16, 1024]")


@dataclass
class Prompts:
    """From a raw prompt table to clean train and eval prompts."""

    raw: str = key("data/prompts/raw.csv", "a CSV with VidProM's columns, or a .txt with one prompt per line")
    min_characters: int = key(8, "shorter prompts are dropped")
    max_characters: int = key(1500, "longer prompts are dropped")
    min_latin_share: float = key(0.9, "least share of a prompt's letters that are Latin")
    max_scores: MaxScores = field(default_factory=MaxScores)
    unsafe_words: str = key("data/prompts/unsafe_words.txt", "one word or phrase per line; # starts a comment")
    near_duplicates: NearDuplicates = field(default_factory=NearDuplicates)
    world: str | None = key(DIGITS, "keep the prompts that this world can show; null: keep all")
    extension: str = key("data/prompts/extension.csv", "columns prompt and text: longer texts, looked up by prompt")
    eval_share: float = key(0.15, "share of the prompts kept for evaluation, by hash")

    def __post_init__(self) -> None:
        require(bool(self.raw), "raw", self.raw, "the path of a prompt table")
        require(self.min_characters > 0, "min_characters", self.min_characters, "a positive integer")
        allowed = f"min_characters ({self.min_characters}) to 30000"
        require(self.min_characters <= self.max_characters <= 30000, "max_characters", self.max_characters, allowed)
        require(0 <= self.min_latin_share <= 1, "min_latin_share", self.min_latin_share, "a number in [0, 1]")
        require(self.world in (DIGITS, None), "world", self.world, f"{DIGITS} or null")
        require(0 < self.eval_share < 1, "eval_share", self.eval_share, "a number in (0, 1)")
