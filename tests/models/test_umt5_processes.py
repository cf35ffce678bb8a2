"""Wan's text encoder on two processes: spread and divided, the bytes of a process alone, and nobody left waiting."""

import shutil
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from filmstill.errors import FilmstillError
from filmstill.models import prompt_cache
from filmstill.models.prompt_cache import PromptCache
from filmstill.models.umt5 import Umt5, clean_prompt
from filmstill.models.umt5_folder import WEIGHTS
from filmstill.runtime import distributed
from filmstill.runtime.distributed import local_tensor, rank
from processes import run_on
from tiny_umt5 import random_weights
from umt5_folders import PROMPTS, TEXT_LEN, imported, one_thread, opened, release

SEVEN = [*PROMPTS, "red " * 100, "down " * TEXT_LEN]
ASKED = [*SEVEN, SEVEN[0], " blue  7"]  # two of them again


def test_two_processes_put_the_same_bytes_into_the_cache(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    artifact, alone = imported(release(tmp_path / "released"), tmp_path / "artifact"), tmp_path / "alone"
    with one_thread():  # as each of the two
        opened(artifact, alone / "seven").prepare(ASKED)
        opened(artifact, alone / "two").prepare(PROMPTS[:2])
        opened(artifact, alone / "one").prepare(["up"])
        torch.save(opened(artifact, alone / "seven").encode(ASKED), tmp_path / "rows.pt")
    capfd.readouterr()
    run_on(2, scenario, artifact, alone, tmp_path)
    told = capfd.readouterr().err
    assert told.count("warning: 2 of 7 prompts are longer than 48 tokens and were cut; the longest has 101") == 1
    assert told.count("warning:") == 1
    assert [told.count(f" {shown} [") for shown in ("0/7", "7/7")] == [1, 1]  # of one bar


def scenario(artifact: Path, alone: Path, folder: Path) -> None:
    """What both processes do."""
    for device in ("cuda", "cpu"):  # of the training: the encoder keeps to the CPU either way
        distributed.sharding_config().device = device
        the_weights_are_spread(opened(artifact, folder / "none"))
    made = record_what_is_made()
    encoder = opened(artifact, folder / "seven")
    for _ in range(2):
        encoder.prepare(ASKED)
        assert_same_bytes(folder / "seven", alone / "seven")
        assert made == [clean_prompt(prompt) for prompt in SEVEN][rank() :: 2]
    opened(without_weights(artifact, folder), folder / "seven").prepare(ASKED)
    opened(artifact, folder / "two").prepare(PROMPTS[:2])
    assert_same_bytes(folder / "two", alone / "two")
    opened(artifact, folder / "one").prepare(["up"])
    assert_same_bytes(folder / "one", alone / "one")
    assert len(made) == (4 + 1 + 1, 3 + 1)[rank()]  # each prompt was put once
    assert torch.equal(encoder.encode(ASKED), torch.load(folder / "rows.pt"))
    if rank() == 1:
        what_was_never_prepared_is_refused(encoder)


def the_weights_are_spread(encoder: Umt5) -> None:
    weights = list(encoder._placed().parameters())
    assert sum(weight.numel() for weight in weights) == sum(weight.numel() for weight in random_weights(0).values())
    assert all(2 * local_tensor(weight).numel() == weight.numel() for weight in weights)
    assert not any(weight.requires_grad for weight in weights)


def record_what_is_made() -> list[str]:
    """The prompts that this process puts into a cache from now on; the second one takes its time."""
    made, put = [], PromptCache.put

    def slow(cache: PromptCache, prompt: str, rows: Tensor) -> None:
        time.sleep(0.2 * rank())
        made.append(prompt)
        put(cache, prompt, rows)

    PromptCache.put = slow  # the process ends with the scenario
    return made


def without_weights(artifact: Path, folder: Path) -> Path:
    copy = Path(shutil.copytree(artifact, folder / f"without-{rank()}"))
    (copy / WEIGHTS).unlink()
    return copy


def assert_same_bytes(ours: Path, theirs: Path) -> None:
    found, expected = (
        {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()} for folder in (ours, theirs)
    )
    assert found == expected


def what_was_never_prepared_is_refused(encoder: Umt5) -> None:
    """At once where one process asks: the others would not come to the network's passes."""
    prompt_cache.PAUSES, start = (0.1, 0.2), time.monotonic()
    with pytest.raises(FilmstillError, match=r"sees no whole .* after 0\.3 s, of the prompt 'a prompt of another day'"):
        encoder.encode([PROMPTS[0], "a prompt of another day"])
    assert time.monotonic() - start < 2
