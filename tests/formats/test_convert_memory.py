"""Converting a large checkpoint needs memory for a tensor, not for the network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import filmstill
from checkpoints import left, same, weights
from filmstill.formats.convert import convert
from filmstill.formats.layouts import read_network
from filmstill.models.dit import DiTConfig
from filmstill.models.weights import save_model
from goldens import TINY


@pytest.fixture
def student(tmp_path: Path) -> Path:
    path = tmp_path / "student.safetensors"
    save_model(path, weights(mixed=True), TINY, {})
    return path


MEASURE = """
import sys, threading
from pathlib import Path
import torch
from filmstill.formats.convert import convert

torch.set_num_threads(1)
resident = lambda: [int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("Rss")]
_, small, shard_bytes, *words = sys.argv
convert(Path(small), Path("small.safetensors"), "filmstill")  # warm-up: one-time allocations
for source, target in zip(words[::2], words[1::2]):
    before, peak, done = resident(), [0, 0, 0], threading.Event()

    def poll():
        while not done.wait(0.001):
            peak[:] = map(max, peak, resident())

    thread = threading.Thread(target=poll)
    thread.start()
    convert(Path(source), Path(target), Path(target).stem, heads=4, shard_bytes=int(shard_bytes))
    done.set()
    thread.join()
    anonymous, mapped, _ = (most - first for most, first in zip(peak, before))
    print(anonymous, mapped)
"""


def test_memory_holds_a_tensor_not_a_network(student, tmp_path):
    """Convert 207 MB in tensors of at most 4 MB, from a pickle and from shards of 50 MB.

    A source's mapped pages belong to the page cache; at most one file is mapped at a time, except that torch.save
    needs all tensors mapped before it starts.
    """
    shard, pickled, sharded = 50_000_000, tmp_path / "large.pt", tmp_path / "large"
    config = DiTConfig(dim=512, ffn_dim=2048, num_heads=4, num_layers=12, freq_dim=32, text_dim=64, in_channels=16)
    torch.save({"generator": weights(config)}, pickled)
    convert(pickled, sharded, "wan", heads=4, shard_bytes=shard)
    assert len(left(sharded)) == 5 + 2
    words = [pickled, "filmstill.safetensors", sharded, "diffusers", sharded, "self-forcing.pt"]
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, student, str(shard), *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(filmstill.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    (pickle_anonymous, pickle_mapped), (shards_anonymous, shards_mapped), (anonymous, _) = (
        map(int, line.split()) for line in ran.stdout.splitlines()
    )
    print(ran.stdout)
    assert max(pickle_anonymous, shards_anonymous, anonymous) < 0.2 * shard
    assert pickle_anonymous + pickle_mapped < 1.2 * pickled.stat().st_size
    assert shards_anonymous + shards_mapped < 1.2 * shard
    assert read_network(tmp_path / "diffusers").config == config
    assert same(dict(read_network(tmp_path / "filmstill.safetensors").weights), weights(config))
