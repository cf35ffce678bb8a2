"""Find copies of earlier prompts: the same text, or nearly the same words.

The first of several copies is kept, so rows added at the end change nothing above them. MinHash only proposes
candidates, whose Jaccard index is then computed exactly: a copy may be missed (RECALL), but no prompt that is not a
copy is dropped. rensa needs 0.8 s and 0.16 GB for 100,000 prompts, datasketch 12.5 s and 0.8 GB; VidProM
(arXiv:2403.06098) has 1.67 million.

Shingles are two words and the Jaccard threshold is 0.8 because one replaced word changes two of the n + 1 shingles of n
words (sentence ends included), which leaves an index of (n - 1) / (n + 3). Up to 16 words this is below 0.8, so "a red
star sways" and "a blue star sways" are two prompts, while long prompts that differ by one word are copies.

A misspelt word counts as another word, so a short prompt and its misspelt copy are both kept. By its letters "roman" is
as near to "woman" as "womam" is, and nothing in a table tells a slip of the pen from a rare word: "moose" may be there
once and "mouse" often. A list of words would lack names. A copy that stays costs less than a prompt that is lost.

Scripts without spaces (Chinese, Japanese, Thai, …) have no words to count. One replaced character is another animal,
colour or size in a prompt of ten characters and of fifty, and shingles of k characters change by only k: their index
exceeds 0.8 from 9 k characters on. The text in these scripts must therefore be the same, character by character and
without punctuation, white space and whole repetitions; every shingle carries it. Words beside it count as above.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from rensa import RMinHash, RMinHashLSH  # type: ignore[import-untyped]

from filmstill.params.prompts import NearDuplicates
from filmstill.prompts.clean import WITHOUT_SPACES, key, script_of

RECALL = 0.98  # for pairs exactly at the threshold; a higher one needs more exact comparisons
CROWD = 64  # candidates of a row that is kept out of the index: a table of one template would compare every pair
SENTENCE = 4  # characters; what is shorter and repeated is a word: 人 is a person, 人人 everyone
RUN = "…"  # stands for a run of such characters among the words, where it cannot be one


def exact_reasons(prompts: Sequence[str], ids: Sequence[str]) -> list[str | None]:
    """A reason for every row whose prompt or id equals an earlier kept row's, else None."""
    first: dict[str, str] = {}
    names: set[str] = set()
    reasons: list[str | None] = []
    for prompt, name in zip(map(key, prompts), ids, strict=True):
        if prompt in first:
            reasons.append(f"same as {first[prompt]}")
        elif name in names:
            reasons.append(f"id {name} is taken")
        else:
            first[prompt] = name
            names.add(name)
            reasons.append(None)
    return reasons


def near_reasons(prompts: Sequence[str], ids: Sequence[str], params: NearDuplicates) -> list[str | None]:
    """A reason for every row whose prompt is nearly an earlier kept row's, else None."""
    kept = _Kept(prompts, params)
    earlier = map(kept.copied_or_add, range(len(prompts)))
    return [None if row is None else f"nearly {ids[row]}" for row in earlier]


@lru_cache(maxsize=65536)  # candidates are compared many times; all of VidProM would not fit into memory
def words_of(prompt: str) -> tuple[str, tuple[str, ...]]:
    """(text in scripts without spaces, lower-case words), both without punctuation; its characters if it has neither.

    A symbol that is not ASCII, such as an emoji, is a word. Each run of characters without spaces is the word RUN.
    """
    text = key(prompt)
    if not any(map(str.isalnum, text)):
        return "", tuple(text)
    if text.isascii():
        return "", tuple(re.findall(r"\w+", text))
    runs = "".join(character for character in text if _spaced(character) == f" {RUN} ")
    words = "".join(map(_spaced, text)).split()
    merged = [word for i, word in enumerate(words) if word != RUN or words[i - 1 : i] != [RUN]]
    return _once(runs), tuple(merged)


@lru_cache(maxsize=65536)
def shingles(prompt: str, size: int) -> frozenset[str]:
    """Every run of `size` words; the sentence's ends count as words if `size` is more than 1.

    Each is preceded by a hash of the prompt's text in scripts without spaces, if it has any.
    """
    runs, words = words_of(prompt)
    words = ("", *words, "") if size > 1 else words
    start = f"{hashlib.sha256(runs.encode()).hexdigest()} " if runs else ""
    return frozenset(start + " ".join(words[i : i + size]) for i in range(max(1, len(words) - size + 1)))


def rows_per_band(jaccard: float, num_perm: int) -> int:
    """The largest number of rows per band that still finds a pair at the threshold with probability RECALL."""
    enough = (r for r in range(num_perm, 0, -1) if 1 - (1 - jaccard**r) ** (num_perm // r) >= RECALL)
    return next(enough, 1)


@lru_cache(maxsize=65536)
def _spaced(character: str) -> str:
    """The character in a word, a word of its own between spaces, or a space between words."""
    category = unicodedata.category(character)
    if script_of(character) == "VARIATION":  # VARIATION SELECTOR: how the character before it is drawn
        return ""
    if category[0] in "LMN":  # marks too: the vowels of Hindi are marks
        return f" {RUN} " if script_of(character) in WITHOUT_SPACES else character
    if category[0] == "S" and not character.isascii():
        return f" {character} "
    return character if character == "_" else " "


def _once(text: str) -> str:
    """The sentence of which the text is a repetition; the text itself if it is none."""
    period = (text + text).find(text, 1)
    return text[:period] if period >= SENTENCE else text


class _Kept:
    """Kept rows, by their shingles and by the MinHash of these; a candidate is a copy if its exact index is high."""

    def __init__(self, prompts: Sequence[str], params: NearDuplicates) -> None:
        self.prompts, self.params = prompts, params
        rows = rows_per_band(params.jaccard, params.num_perm)
        bands = params.num_perm // rows
        self.num_perm = bands * rows
        self.lsh = RMinHashLSH(threshold=params.jaccard, num_perm=self.num_perm, num_bands=bands)
        self.same: dict[int, int] = {}  # first row by the hash of its shingles

    def copied_or_add(self, row: int) -> int | None:
        """The first kept row that `row` is a copy of; if there is none, `row` is kept."""
        of_row = self._shingles(row)
        same = self.same.get(hash(of_row))
        if same is not None and self._shingles(same) == of_row:
            return same
        sketch = RMinHash(num_perm=self.num_perm, seed=0)
        sketch.update(list(of_row))
        candidates = sorted(self.lsh.query(sketch))
        for other in candidates:
            if self._similar(of_row, self._shingles(other)):
                return other
        self.same[hash(of_row)] = row
        if len(candidates) < CROWD:
            self.lsh.insert(row, sketch)
        return None

    def _shingles(self, row: int) -> frozenset[str]:
        return shingles(self.prompts[row], self.params.shingle_words)

    def _similar(self, a: frozenset[str], b: frozenset[str]) -> bool:
        shared = len(a & b)
        return shared >= self.params.jaccard * (len(a) + len(b) - shared)
