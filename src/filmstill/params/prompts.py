"""The section `prompts` of params.yaml."""

from dataclasses import dataclass, field

from filmstill.errors import require
from filmstill.params.keys import check_intervals, key
from filmstill.params.world import EMBEDDED


@dataclass
class MaxScores:
    """Limits of VidProM's score columns (Detoxify probabilities)."""

    toxicity: float | None = key(0.2, "highest toxicity score kept; null: not checked", "[0, 1]")
    obscene: float | None = key(0.2, "highest obscene score kept; null: not checked", "[0, 1]")
    identity_attack: float | None = key(0.2, "highest identity attack score kept; null: not checked", "[0, 1]")
    insult: float | None = key(0.2, "highest insult score kept; null: not checked", "[0, 1]")
    threat: float | None = key(0.2, "highest threat score kept; null: not checked", "[0, 1]")
    sexual_explicit: float | None = key(0.2, "highest sexual explicit score kept; null: not checked", "[0, 1]")

    def __post_init__(self) -> None:
        check_intervals(self)


@dataclass
class NearDuplicates:
    """When a prompt counts as a copy of an earlier one (prompts/duplicates.py explains the values)."""

    jaccard: float = key(0.8, "share of common shingles from which two prompts are copies", "(0, 1]")
    shingle_words: int = key(2, "words per shingle", "[1, 100]")
    num_perm: int = key(128, "MinHash permutations", "[16, 1024]")

    def __post_init__(self) -> None:
        check_intervals(self)


@dataclass
class Prompts:
    """From a raw prompt table to clean train and eval prompts."""

    raw: str = key("data/prompts/raw.csv", "a CSV with VidProM's columns, or a .txt with one prompt per line")
    min_characters: int = key(8, "shorter prompts are dropped", "[1, 30000]")
    max_characters: int = key(1500, "longer prompts are dropped", "[1, 30000]")
    min_latin_share: float = key(0.9, "least share of a prompt's letters that are Latin", "[0, 1]")
    max_scores: MaxScores = field(default_factory=MaxScores)
    unsafe_words: str = key("data/prompts/unsafe_words.txt", "one word or phrase per line; # starts a comment")
    near_duplicates: NearDuplicates = field(default_factory=NearDuplicates)
    world: str | None = key(EMBEDDED, "keep the prompts that this world can show; null: keep all")
    extension: str = key("data/prompts/extension.csv", "columns prompt and text: longer texts, looked up by prompt")
    eval_share: float = key(0.15, "share of the prompts kept for evaluation, by hash", "(0, 1)")

    def __post_init__(self) -> None:
        check_intervals(self)
        for name in ("raw", "unsafe_words", "extension"):
            path = getattr(self, name)
            require(bool(path.strip()), name, path, "the path of a file, relative to the repository")
        allowed = f"at least min_characters ({self.min_characters})"
        require(self.min_characters <= self.max_characters, "max_characters", self.max_characters, allowed)
        require(self.world in (EMBEDDED, None), "world", self.world, f"{EMBEDDED} or null")
