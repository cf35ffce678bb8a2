"""Make raw.csv: 3,000 invented prompts with the columns of VidProM (arXiv:2403.06098) and the faults of a real table.

    PYTHONPATH=src python data/prompts/make_raw.py

The symbols world can show half of them; a share of these leaves the colour open, and every combination that no model
trains on occurs. The others contain what real tables contain, and each step of the prompts stage drops some. The same
script gives the same bytes.
"""

import csv
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import TypeVar

import torch

from filmstill.params.prompts import MaxScores
from filmstill.runtime.files import replacing
from filmstill.runtime.randomness import generator
from filmstill.worlds.grammar import COLOURS, COMBINATIONS, SYMBOLS
from filmstill.worlds.sentences import sentence

SCORES = tuple(vars(MaxScores()))
DICE = generator(0, "raw prompts")
TURNS = cycle(COMBINATIONS)
OPEN_PERCENT = 15  # of the showable prompts leave the colour open

Choice = TypeVar("Choice")

ANIMALS = (
    "a golden retriever|an old fisherman|a tiny robot|two astronauts|a ballerina|an orange cat|a dragon|a street cook"
)
ACTIONS = "walking through the rain|dancing on a rooftop|running along a beach|drinking tea|looking at the sea"
PLACES = "in Tokyo at night|in a misty forest|on Mars|under water|in a medieval village|at golden hour"
STYLES = "cinematic, 4k|anime style|highly detailed, volumetric light|pixar style|slow motion|shot on 35mm film"
ORDERS = "|-camera zoom in|-ar 16:9|-motion 2 -gs 12|--ar 9:16|-neg blurry, low quality|Message: 1 Attachment, https://cdn.example.com/a.png"
OTHER_SCRIPTS = """красная звезда качается влево и вправо|девушка идёт по берегу моря на закате|
一颗红色的星星左右摇摆|雨の東京を歩く少女、アニメ風|
أسد يركض في الصحراء عند الغروب|एक लड़का बारिश में नाच रहा है|붉은 별이 좌우로 흔들린다|
ένα κόκκινο αστέρι κινείται δεξιά και αριστερά|ילד רץ על חוף הים בשקיעה|เด็กผู้หญิงเต้นรำกลางสายฝน""".replace("\n", "")
RUDE = """a bloody battle on a bridge|a man with a gun in an alley|zombies, gore, blood everywhere|
a nude statue comes alive|a drunk pirate sings""".replace("\n", "")
ALMOST = """a {c} star and a {c} heart sway left and right|a purple {s} bobs up and down|a {c} snowman goes clockwise|
a {c} {s} on a beach sways left and right|a {c} {s}|a {c} letter B bobs up and down|a {c} or green {s} goes clockwise|
a {c} {s} sways up and down|a {c} {s} moves left|a {s} moves|a {c} {s} jumps over a fence|a {c} {s} and a shape bob|
a {c} comet moves from side to side|a {c} {s} circles""".replace("\n", "")
SHORT = "hi|a|??|test|cat|.|lol|7|\U0001f600|a dog"
ACCENTS = "a café in Montréal, crème brûlée on the table|señorita bailando en la plaza|Zürich by night — snow falling"


def pick(choices: Sequence[Choice]) -> Choice:
    return choices[below(len(choices))]


def one_of(texts: str) -> str:
    return pick(texts.split("|"))


def below(high: int) -> int:
    return int(torch.randint(high, (), generator=DICE))


def showable() -> str:
    """A sentence of the symbols world. Combinations take turns, so that each occurs in a few sentences."""
    shown = next(TURNS)
    return sentence(replace(shown, colour=None) if below(100) < OPEN_PERCENT else shown, DICE)


def real_life() -> str:
    text = f"{one_of(ANIMALS)} {one_of(ACTIONS)} {one_of(PLACES)}, {one_of(STYLES)}"
    return f"{text}{pick((' ', chr(10), ', '))}{one_of(ORDERS)}".strip()


def pasted(text: str) -> str:
    """The sentence as pasted from web pages, chats and word processors; cleaning restores it."""
    nbsp, zero_width, bell = "\u00a0", "\u200b", "\x07"
    return pick(
        (
            f"<p>{text}</p>",
            f"&quot;{text}&quot;",
            f"  {text.replace(' ', '   ')}\t",
            text.replace(" ", nbsp),
            text.replace(" ", f" {zero_width}", 2),
            f"{bell}{text}",
            f"\u2014 {text}".encode().decode("cp1252"),  # mojibake
            text.replace(" ", "\r\n", 1),
            f"<b>{text}</b><br/>",
            "".join(chr(ord(c) + 0xFEE0) if c.isalpha() else c for c in text),  # full width
        )
    )


def copied(text: str) -> str:
    return pick((text, text.upper(), f" {text} ", text.lower(), pasted(text)))


def nearly_copied(text: str) -> str:
    """The sentence with other punctuation, a doubled word, or a misspelt word."""
    words = text.rstrip(".").split()
    place = below(len(words))
    doubled = [*words[:place], words[place], *words[place:]]
    word = max(words, key=len)
    at = 1 + below(len(word) - 2)
    slips = (
        word[:at] + word[at + 1 :],
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + word[at - 1 :],
    )
    slipped = text.replace(word, pick(slips))
    return pick((f"{text[:-1]}!!!", text.replace(" ", ", ", 1), f"({text[:-1]})", " ".join(doubled), slipped))


def distinct(count: int, draw: Callable[[], str]) -> list[str]:
    """`count` different results of `draw`, in the order of their first occurrence."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[draw()] = None
    return list(found)


def prompts() -> list[tuple[str, bool]]:
    """(prompt, whether its scores are bad), in the order of the table."""
    shown = distinct(1560, showable)
    accents = [one_of(ACCENTS).encode().decode("cp1252", errors="replace") for _ in range(40)]
    almost = [one_of(ALMOST).format(c=pick(COLOURS), s=pick(SYMBOLS)) for _ in range(110)]
    fine = [
        *(pasted(text) if below(8) == 0 else text for text in shown),
        *(copied(pick(shown)) for _ in range(150)),
        *(nearly_copied(pick(shown)) for _ in range(160)),
        *(real_life() for _ in range(600)),
        *(one_of(OTHER_SCRIPTS) for _ in range(100)),
        *(pick(("", "   ", "\t", "\n", "<br>", "&nbsp;", "\u200b")) for _ in range(50)),
        *(one_of(SHORT) for _ in range(40)),
        *(" ".join(real_life() for _ in range(22)) for _ in range(20)),
        *(f"{one_of(RUDE)}, {one_of(STYLES)}" for _ in range(60)),
        *almost,
        *accents,
    ]
    bad = [showable() if below(2) else real_life() for _ in range(110)]
    rows = [(text, False) for text in fine] + [(text, True) for text in bad]
    return [rows[i] for i in torch.randperm(len(rows), generator=DICE).tolist()]


def scores(bad: bool) -> list[str]:
    """VidProM's six probabilities of unsafe content; `bad` makes one or two high, a few rows have an unreadable one."""
    values = (torch.rand(len(SCORES), generator=DICE, dtype=torch.float64) ** 4 * 0.08).tolist()
    if bad:
        for _ in range(2):
            values[below(len(SCORES))] = 0.3 + below(69000) / 1e5
    texts = [f"{value:.5f}" for value in values]
    if below(400) == 0:
        texts[below(len(SCORES))] = pick(("", "n/a"))
    return texts


def main() -> None:
    with replacing(Path(__file__).with_name("raw.csv")) as path, path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("uuid", "prompt", "time", *SCORES))
        for row, (prompt, bad) in enumerate(prompts()):
            when = datetime(2023, 7, 1) + timedelta(seconds=below(20_000_000))
            name = uuid.uuid5(uuid.NAMESPACE_URL, f"filmstill/{row}")
            table.writerow((name, prompt, when.strftime("%a %b %d %H:%M:%S %Y"), *scores(bad)))


if __name__ == "__main__":
    main()
