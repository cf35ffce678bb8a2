"""Wan's text encoder on two ranks: sharded weights, divided prompts, the same bytes as one process, no deadlock."""

import shutil
import time
from pathlib import Path
from types import SimpleNamespace

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
REQUESTED = [*SEVEN, SEVEN[0], " blue  7"]  # two of them are repeated


def test_two_processes_put_the_same_bytes_into_the_cache(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    artifact, alone = imported(release(tmp_path / "released"), tmp_path / "artifact"), tmp_path / "alone"
    with one_thread():  # like each of the ranks
        opened(artifact, alone / "seven").prepare(REQUESTED)
        opened(artifact, alone / "two").prepare(PROMPTS[:2])
        opened(artifact, alone / "one").prepare(["up"])
        torch.save(opened(artifact, alone / "seven").encode(REQUESTED), tmp_path / "rows.pt")
    capfd.readouterr()
    run_on(2, scenario, artifact, alone, tmp_path)
    stderr = capfd.readouterr().err
    assert stderr.count("warning: 2 of 7 prompts are longer than 48 tokens and were cut; the longest has 101") == 1
    assert stderr.count("warning:") == 1
    assert [stderr.count(f" {shown} [") for shown in ("0/7", "7/7")] == [1, 1]  # of a single bar


def scenario(artifact: Path, alone: Path, folder: Path) -> None:
    """Runs on both ranks."""
    for device in ("cuda", "cpu"):  # of training; the encoder stays on the CPU either way
        distributed.sharding_config().device = device
        the_weights_are_sharded(opened(artifact, folder / "none"))
    made = record_what_is_made()
    encoder = opened(artifact, folder / "seven")
    for _ in range(2):
        encoder.prepare(REQUESTED)
        assert_same_bytes(folder / "seven", alone / "seven")
        assert made == [clean_prompt(prompt) for prompt in SEVEN][rank() :: 2]
    opened(without_weights(artifact, folder), folder / "seven").prepare(REQUESTED)
    opened(artifact, folder / "two").prepare(PROMPTS[:2])
    assert_same_bytes(folder / "two", alone / "two")
    opened(artifact, folder / "one").prepare(["up"])
    assert_same_bytes(folder / "one", alone / "one")
    assert len(made) == (4 + 1 + 1, 3 + 1)[rank()]  # each prompt was put once
    assert torch.equal(encoder.encode(REQUESTED), torch.load(folder / "rows.pt"))
    if rank() == 1:
        what_was_never_prepared_is_refused(encoder)


def test_two_processes_without_a_cache_share_what_they_encode(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    artifact = imported(release(tmp_path / "released"), tmp_path / "artifact")
    with one_thread():
        torch.save(opened(artifact, tmp_path / "alone").encode(REQUESTED), tmp_path / "rows.pt")
    (tmp_path / "file").touch()
    capfd.readouterr()
    run_on(2, unwritable, artifact, tmp_path)
    stderr = capfd.readouterr().err
    reason = (
        "encoded prompts cannot be cached (Not a directory); they stay in memory, and the next run encodes them again"
    )
    assert stderr.count(f"warning: {tmp_path / 'file/cache'}: {reason}") == 1
    assert stderr.count("damaged entry of the cache of encoded prompts; encoding it again") == 1


def unwritable(artifact: Path, folder: Path) -> None:
    """Runs on both ranks: a cache below a file, then one with a damaged entry."""
    rows = torch.load(folder / "rows.pt")
    encoder = opened(artifact, folder / "file/cache")
    for prompts in (REQUESTED[:1], REQUESTED, REQUESTED):
        encoder.prepare(prompts)
        assert encoder._network is None
    assert torch.equal(encoder.encode(REQUESTED), rows)
    encoder = opened(artifact, folder / "alone")
    if rank() == 0:
        encoder.cache._path(SEVEN[1]).write_bytes(b"")
    encoder.prepare(REQUESTED)
    assert torch.equal(encoder.encode(REQUESTED), rows)


def the_weights_are_sharded(encoder: Umt5) -> None:
    weights = list(encoder._loaded().parameters())
    assert sum(weight.numel() for weight in weights) == sum(weight.numel() for weight in random_weights(0).values())
    assert all(2 * local_tensor(weight).numel() == weight.numel() for weight in weights)
    assert not any(weight.requires_grad for weight in weights)


def record_what_is_made() -> list[str]:
    """List of the prompts that this rank puts into a cache from now on; rank 1 is slowed down."""
    made, put = [], PromptCache.put

    def slow(cache: PromptCache, prompt: str, rows: Tensor) -> None:
        time.sleep(0.2 * rank())
        made.append(prompt)
        put(cache, prompt, rows)

    PromptCache.put = slow  # not restored: the process ends with the scenario
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
    """`encode` on one rank does not run the sharded network, whose passes the other rank would not join."""
    slept: list[float] = []
    prompt_cache.PAUSES, prompt_cache.time = (0.1, 0.2), SimpleNamespace(sleep=slept.append)
    message = r"sees no complete .* after 0\.3 s, of the prompt 'a prompt of another day'"
    with pytest.raises(FilmstillError, match=message):
        encoder.encode([PROMPTS[0], "a prompt of another day"])
    assert slept == [0, 0, 0.1, 0.2]  # the first prompt is there without a pause
