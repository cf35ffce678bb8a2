"""Find copies of earlier prompts: the same text, nearly the same words, or the same words with one misspelt.

The first of several copies is kept, so rows added at the end change nothing above them. MinHash only proposes
candidates, whose Jaccard index is then computed exactly: a copy may be missed (RECALL), but no prompt that is not a
copy is dropped. rensa needs 0.8 s and 0.16 GB for 100,000 prompts, datasketch 12.5 s and 0.8 GB; VidProM
(arXiv:2403.06098) has 1.67 million.

Shingles are two words and the Jaccard threshold is 0.8 because one replaced word changes two of the n + 1 shingles of n
words (sentence ends included), which leaves an index of (n - 1) / (n + 3). Up to 16 words this is below 0.8, so "a red
three sways" and "a blue three sways" are two prompts, while long prompts that differ by one word are copies. Short
prompts are copies only if the one word is a misspelling (`one_slip`). Shingles of letters would fail: "a red 2 sways"
is closer to "a red 3 sways" than any misspelling of it.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from rensa import RMinHash, RMinHashLSH  # type: ignore[import-untyped]

from filmstill.params.prompts import NearDuplicates
from filmstill.prompts.clean import key

RECALL = 0.98  # for pairs exactly at the threshold; a higher one needs more exact comparisons
SLIP_LETTERS = 4  # shorter words that differ by one letter are mostly different words (cat, car)
SLIP_WORDS = 16  # longer prompts that differ by one word are copies by their shingles


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
    shingled, slips = _Shingled(prompts, params), _Slips(prompts)
    reasons: list[str | None] = []
    for row in range(len(prompts)):
        copies = [copy for copy in (shingled.earliest(row), slips.earliest(row)) if copy is not None]
        reasons.append(f"nearly {ids[min(copies)]}" if copies else None)
        if not copies:
            shingled.add(row)
            slips.add(row)
    return reasons


@lru_cache(maxsize=65536)  # candidates are compared many times; all of VidProM would not fit into memory
def words_of(prompt: str) -> tuple[str, ...]:
    """Lower-case words without punctuation; the characters if there is no word."""
    return tuple(re.findall(r"\w+", key(prompt))) or tuple(prompt)


@lru_cache(maxsize=65536)
def shingles(prompt: str, size: int) -> frozenset[str]:
    """Every run of `size` words; the sentence's ends count as words if `size` is more than 1."""
    words = ("", *words_of(prompt), "") if size > 1 else words_of(prompt)
    return frozenset(" ".join(words[i : i + size]) for i in range(max(1, len(words) - size + 1)))


def rows_per_band(jaccard: float, num_perm: int) -> int:
    """The largest number of rows per band that still finds a pair at the threshold with probability RECALL."""
    enough = (r for r in range(num_perm, 0, -1) if 1 - (1 - jaccard**r) ** (num_perm // r) >= RECALL)
    return next(enough, 1)


def one_slip(a: str, b: str) -> bool:
    """Whether adding, omitting or replacing one letter, or swapping two neighbours, turns `a` into `b`."""
    if a == b or min(len(a), len(b)) < SLIP_LETTERS or not (a.isalpha() and b.isalpha()):
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    a, b = a[start:], b[start:]
    swapped = a[:2] == b[1::-1] and a[2:] == b[2:]
    return swapped or a[1:] == b[1:] or a[1:] == b or a == b[1:]


def one_word_slipped(a: Sequence[str], b: Sequence[str]) -> bool:
    """Whether the words are equal except for one, which is a slip."""
    different = [pair for pair in zip(a, b, strict=False) if pair[0] != pair[1]]
    return len(a) == len(b) and len(different) == 1 and one_slip(*different[0])


class _Shingled:
    """Index of kept rows by the MinHash of their shingles; a candidate is a copy if its exact Jaccard index is high."""

    def __init__(self, prompts: Sequence[str], params: NearDuplicates) -> None:
        self.prompts, self.params = prompts, params
        rows = rows_per_band(params.jaccard, params.num_perm)
        bands = params.num_perm // rows
        self.num_perm = bands * rows
        self.lsh = RMinHashLSH(threshold=params.jaccard, num_perm=self.num_perm, num_bands=bands)

    def earliest(self, row: int) -> int | None:
        """The first kept row that `row` is a copy of."""
        of_row = self._shingles(row)
        candidates = sorted(self.lsh.query(self._sketch(row)))
        return next((other for other in candidates if self._similar(of_row, self._shingles(other))), None)

    def add(self, row: int) -> None:
        self.lsh.insert(row, self._sketch(row))

    def _shingles(self, row: int) -> frozenset[str]:
        return shingles(self.prompts[row], self.params.shingle_words)

    def _sketch(self, row: int) -> RMinHash:
        sketch = RMinHash(num_perm=self.num_perm, seed=0)
        sketch.update(list(self._shingles(row)))
        return sketch

    def _similar(self, a: frozenset[str], b: frozenset[str]) -> bool:
        shared = len(a & b)
        return shared >= self.params.jaccard * (len(a) + len(b) - shared)


class _Slips:
    """Index of kept rows by their words with one word left out."""

    def __init__(self, prompts: Sequence[str]) -> None:
        self.prompts = prompts
        self.rows: dict[int, list[int]] = {}

    def earliest(self, row: int) -> int | None:
        """The first kept row that differs from `row` by one misspelt word."""
        words = words_of(self.prompts[row])
        near = {other for hole in self._holes(words) for other in self.rows.get(hole, ())}
        copies = (other for other in near if one_word_slipped(words, words_of(self.prompts[other])))
        return min(copies, default=None)

    def add(self, row: int) -> None:
        for hole in self._holes(words_of(self.prompts[row])):
            self.rows.setdefault(hole, []).append(row)

    @staticmethod
    def _holes(words: tuple[str, ...]) -> list[int]:
        """For every word long enough for a slip, a hash of the other words; [] for a long prompt."""
        if len(words) > SLIP_WORDS:
            return []
        return [hash((words[:i], words[i + 1 :])) for i, word in enumerate(words) if len(word) >= SLIP_LETTERS]
