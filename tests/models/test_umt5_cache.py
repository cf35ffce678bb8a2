"""Cache of Wan's text encoder: each prompt is encoded once, damage is detected, and the network is freed."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from checkpoints import line_of
from filmstill.errors import FilmstillError
from filmstill.formats.umt5 import import_umt5
from filmstill.models import prompt_cache
from filmstill.models.prompt_cache import PAUSES, PromptCache
from filmstill.models.umt5 import Umt5
from filmstill.models.umt5_folder import WEIGHTS
from filmstill.runtime.tensor_files import save_tensors
from goldens import assert_close
from tiny_umt5 import WAN_FILE, random_weights, write_encoder
from umt5_folders import PROMPTS, TEXT_LEN, imported, one_thread, opened


@pytest.fixture(scope="module", autouse=True)
def on_one_thread() -> Iterator[None]:
    with one_thread():
        yield


def test_a_prompts_bits_do_not_depend_on_its_company(artifact: Path, tmp_path: Path):
    together = opened(artifact, tmp_path / "together").encode(PROMPTS)
    for i, prompt in enumerate(PROMPTS):
        assert torch.equal(opened(artifact, tmp_path / str(i)).encode([prompt])[0], together[i])
    assert torch.equal(
        opened(artifact, tmp_path / "together").encode(PROMPTS[::-1] * 2), together.flip(0).repeat(2, 1, 1)
    )


def test_prompts_that_clean_alike_share_their_vectors(artifact: Path, tmp_path: Path):
    rows = opened(artifact, tmp_path).encode(["a red star", " a  red\nstar"])
    assert torch.equal(rows[0], rows[1])
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_what_is_cached_needs_no_network(artifact: Path, tmp_path: Path):
    folder, cache = Path(shutil.copytree(artifact, tmp_path / "artifact")), tmp_path / "cache"
    first = opened(folder, cache)
    first.prepare(PROMPTS)
    assert first._network is None
    rows = first.encode(PROMPTS)
    assert first._network is None  # no encoder in memory during training
    (folder / WEIGHTS).unlink()
    assert torch.equal(opened(folder, cache).encode(PROMPTS), rows)
    opened(folder, cache).prepare(PROMPTS)
    with pytest.raises(FilmstillError, match=r"encoder\.safetensors: cannot be read \(No such file"):
        opened(folder, cache).encode(["a prompt of another day"])


def test_a_damaged_entry_is_made_again(artifact: Path, tmp_path: Path):
    rows = opened(artifact, tmp_path).encode(PROMPTS)
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == len(PROMPTS)
    assert {len(file.parent.name) for file in files} == {2}
    good = files[0].read_bytes()
    for damage in (good[:-7], good[:-1] + bytes([good[-1] ^ 1]), b"", b"no tensors"):
        files[0].write_bytes(damage)
        assert torch.equal(opened(artifact, tmp_path).encode(PROMPTS), rows)
        assert files[0].read_bytes() == good


def test_damaged_entries_are_named_in_one_warning(
    artifact: Path, tmp_path: Path, filmstill_log: pytest.LogCaptureFixture
):
    rows = opened(artifact, tmp_path).encode(PROMPTS)
    files = [PromptCache(tmp_path, opened(artifact, tmp_path).cache.encoder)._path(prompt) for prompt in PROMPTS[:2]]
    for read in ("prepare", "encode"):
        files[0].write_bytes(b"")
        save_tensors(files[1], {"other": torch.zeros(1)})
        filmstill_log.clear()
        getattr(opened(artifact, tmp_path), read)(PROMPTS)
        [message] = filmstill_log.messages
        assert message == f"{files[0]} and 1 others: damaged entry of the cache of encoded prompts; encoding it again"
        assert torch.equal(opened(artifact, tmp_path).encode(PROMPTS), rows)


LATER = "they stay in memory, and the next run encodes them again"


def no_cache(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """A cache folder that cannot be written, by root neither, and the system's reason."""
    if kind == "full disk":
        monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
        return folder / "cache", "No space left"
    if kind == "read-only":
        monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.EROFS, "Read-only")))
        return folder / "cache", "Read-only"
    if kind == "folder in place of an entry":
        monkeypatch.setattr(PromptCache, "_path", lambda self, prompt: self.folder / "entry")
        (folder / "cache/entry").mkdir(parents=True)
        return folder / "cache", "Is a directory"
    (folder / "file").touch()
    return {
        "file": (folder / "file", "Not a directory"),
        "below a file": (folder / "file/cache", "Not a directory"),
        "unwritable home": (Path("/proc/nohome/.cache"), "No such file or directory"),
    }[kind]


@pytest.mark.parametrize(
    "kind", ["file", "below a file", "unwritable home", "full disk", "read-only", "folder in place of an entry"]
)
def test_a_cache_that_cannot_be_written_costs_a_warning(
    artifact: Path,
    tmp_path: Path,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    filmstill_log: pytest.LogCaptureFixture,
):
    rows = opened(artifact, tmp_path / "good").encode(PROMPTS)
    folder, reason = no_cache(kind, tmp_path, monkeypatch)
    encoder, passes, forward = opened(artifact, folder), [], Umt5._forward
    monkeypatch.setattr(Umt5, "_forward", lambda *given: passes.append(1) or forward(*given))
    encoder.prepare(PROMPTS[:2])
    for _ in range(2):
        encoder.prepare(PROMPTS)
        assert torch.equal(encoder.encode(PROMPTS), rows)
    assert len(passes) == len(PROMPTS), "each prompt is encoded once"
    [message] = filmstill_log.messages
    assert message == f"{folder}: encoded prompts cannot be cached ({reason}); {LATER}"
    assert not list(tmp_path.rglob("*.tmp"))


def test_every_flipped_byte_is_noticed(tmp_path: Path):
    cache, rows = PromptCache(tmp_path, "encoder"), torch.arange(4.0).view(2, 2)
    cache.put("a prompt", rows)
    [file] = tmp_path.rglob("*.safetensors")
    good = file.read_bytes()
    for i in range(len(good)):
        file.write_bytes(good[:i] + bytes([good[i] ^ 0x15]) + good[i + 1 :])
        [found] = cache.get(["a prompt"])
        assert found is None or torch.equal(found, rows), f"byte {i}"


def test_a_file_that_shows_late_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cache, rows, slept = PromptCache(tmp_path, "encoder"), torch.arange(4.0).view(2, 2), []

    def sleep(pause: float) -> None:
        slept.append(pause)
        if len(slept) == 3:
            cache.put("a prompt", rows)

    monkeypatch.setattr(prompt_cache.time, "sleep", sleep)
    assert torch.equal(cache.wait_for("a prompt"), rows)
    assert slept == [0, *PAUSES[:2]]
    slept[:] = [0] * 3
    seen = r"sees no complete \w{64}\.safetensors after 63\.5 s"
    message = rf"^{tmp_path}: .* {seen}, .* put {tmp_path} on a file system"
    with pytest.raises(FilmstillError, match=message):
        cache.wait_for("a prompt of another day")
    assert 60 < sum(slept) < 70


def test_encoders_share_a_folder_and_no_entry(released: Path, artifact: Path, tmp_path: Path):
    """Other weights, lengths and dtypes have their own entries; the same encoder imported twice shares them."""
    write_encoder(tmp_path / WAN_FILE, "wan", seed=1)
    import_umt5(tmp_path / WAN_FILE, released / "google/umt5-xxl", tmp_path / "other", TEXT_LEN)
    cache, prompt = tmp_path / "cache", ["a red star"]
    encoders = [
        opened(artifact, cache),
        opened(tmp_path / "other", cache),
        opened(imported(released, tmp_path / "short", text_len=9), cache),
        opened(artifact, cache, dtype=torch.bfloat16),
        opened(imported(released, tmp_path / "again"), cache),
    ]
    rows = [encoder.encode(prompt) for encoder in encoders]
    assert len(list(cache.rglob("*.safetensors"))) == 4
    assert not torch.allclose(rows[0], rows[1])
    assert rows[3].dtype == torch.bfloat16
    assert_close(rows[3].float(), rows[0], 0.05)
    assert torch.equal(rows[4], rows[0])


def test_two_processes_may_write_the_same_prompts_at_once(tmp_path: Path):
    def write(i: int) -> None:
        PromptCache(tmp_path, "x").put(f"prompt {i % 4}", torch.full((3, 5), i % 4.0))

    script = (
        "import sys, torch; from pathlib import Path; from filmstill.models.prompt_cache import PromptCache\n"
        "for i in range(40): PromptCache(Path(sys.argv[1]), 'x').put(f'prompt {i % 4}', torch.full((3, 5), i % 4.0))"
    )
    cache, prompts, rounds = PromptCache(tmp_path, "x"), [f"prompt {i}" for i in range(4)], 0
    other = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    while other.poll() is None:
        write(rounds)
        for i, rows in enumerate(cache.get(prompts[: rounds + 1])):
            assert rows is not None
            assert torch.equal(rows, torch.full((3, 5), float(i)))
        rounds += 1
    assert other.returncode == 0
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 4


@pytest.mark.parametrize("placement", ["cpu", "gpu", "offload"])
def test_the_network_is_let_go_of_unless_it_is_to_stay(artifact: Path, tmp_path: Path, placement: str):
    rows = opened(artifact, tmp_path / "one").encode(PROMPTS)
    encoder = opened(artifact, tmp_path / "two", placement)
    assert torch.equal(encoder.encode(PROMPTS), rows)
    assert torch.equal(encoder.encode(["up", *PROMPTS])[1:], rows)
    for _ in range(2):
        assert (encoder._network is not None) == (placement == "gpu")
        encoder.prepare(["down"])


def test_a_damaged_entry_does_not_bring_the_network_back_for_good(artifact: Path, tmp_path: Path):
    """`encode` encodes an entry again that was damaged after `prepare`, and must then free the network."""
    encoder = opened(artifact, tmp_path)
    rows = encoder.encode(PROMPTS)
    encoder.prepare(PROMPTS)
    for path in tmp_path.rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    assert torch.equal(encoder.encode(PROMPTS), rows) and encoder._network is None


def test_an_artifact_that_was_touched(released: Path, artifact: Path, tmp_path: Path):
    """Valid files that do not belong to the folder's encoder.json would fill the cache with wrong vectors."""
    folder = Path(shutil.copytree(artifact, tmp_path / "artifact"))
    save_tensors(folder / WEIGHTS, random_weights(1))
    with pytest.raises(FilmstillError, match=r"artifact: its files are not those encoder\.json was written for"):
        opened(folder, tmp_path / "cache").encode(["a"])
    (folder / "encoder.json").write_text('{"kind": "hashed_words"}')
    with pytest.raises(
        FilmstillError, match=r"encoder\.json: kind: is 'hashed_words', allowed: 'umt5'; import the encoder again"
    ):
        opened(folder, tmp_path / "cache")
    whole = json.loads((artifact / "encoder.json").read_text())
    for key, allowed in (("config", "sizes"), ("text_len", "a number"), ("sha256", "a digest")):
        (folder / "encoder.json").write_text(json.dumps(whole | {key: [1]}))
        line = line_of(lambda: opened(folder, tmp_path / "cache"))
        assert line == f"{folder}/encoder.json: {key}: is [1], allowed: {allowed}; import the encoder again"
    (folder / "encoder.json").write_text(json.dumps(whole | {"config": {}}))
    with pytest.raises(FilmstillError, match=r"encoder\.json: config: d_model: is None, allowed: a number; import"):
        opened(folder, tmp_path / "cache")
    with pytest.raises(FilmstillError, match=r"encoder\.json: no such file"):
        opened(tmp_path, tmp_path / "cache")
