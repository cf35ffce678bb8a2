"""Networks and ODE pairs on disk: loading what was saved, and refusing files that do not fit."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from filmstill.diffusion.schedule import FlowSchedule
from filmstill.errors import FilmstillError
from filmstill.models.weights import load_model, save_model
from filmstill.runtime.tensor_files import load_tensors, save_tensors
from filmstill.training.pairs import Pairs
from goldens import TINY, tiny


@pytest.fixture
def network(tmp_path) -> Path:
    save_model(tmp_path / "net.safetensors", dict(tiny("causal").named_parameters()), TINY, {"shift": 5.0, "steps": 4})
    return tmp_path / "net.safetensors"


def test_a_network_comes_back_frozen_with_its_facts(network):
    model, facts = load_model(network, TINY)
    assert facts == {"shift": 5.0, "steps": 4}
    assert model.config == TINY
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), tiny("causal").parameters(), strict=True))


def test_a_network_of_other_sizes_is_refused_with_each_difference(network):
    with pytest.raises(FilmstillError, match="other sizes") as error:
        load_model(network, replace(TINY, dim=64, num_layers=3))
    message = str(error.value)
    assert "dim 48 (params.yaml: 64)" in message
    assert "num_layers 2 (params.yaml: 3)" in message
    assert "ffn_dim" not in message


@pytest.mark.parametrize("change", ["missing", "extra", "reshaped"])
def test_tensors_that_are_not_the_networks_are_refused_by_name(tmp_path, change):
    tensors = {name: p.detach() for name, p in tiny("causal").named_parameters()}
    if change == "missing":
        del tensors["head.head.bias"]
    elif change == "extra":
        tensors["head.extra"] = torch.zeros(1)
    else:
        tensors["head.head.bias"] = torch.zeros(3)
    save_model(tmp_path / "x.safetensors", tensors, TINY, {})
    with pytest.raises(FilmstillError, match=r"head\.(head\.bias|extra)") as error:
        load_model(tmp_path / "x.safetensors")
    assert "\n" not in str(error.value)


def test_tensors_without_a_config_are_no_network(tmp_path):
    save_tensors(tmp_path / "x.safetensors", {"x": torch.zeros(1)})
    with pytest.raises(FilmstillError, match="no 'config' in its header"):
        load_model(tmp_path / "x.safetensors")


NODES = [*FlowSchedule(5).nodes(4).tolist(), 0.0]


@pytest.fixture
def pairs(tmp_path) -> Path:
    """A folder with two shards of two pairs at the 4 nodes of shift 5, as the ode_pairs stage writes it."""
    rows = []
    for shard in ("pairs-0000.safetensors", "pairs-0001.safetensors"):
        write_shard(tmp_path / shard, NODES)
        rows += [{"id": f"{shard}{i}", "text": f"a {i}", "shard": shard, "row": i} for i in range(2)]
    pd.DataFrame(rows).to_parquet(tmp_path / "manifest.parquet")
    return tmp_path


def ids_of(shard: Path) -> str:
    return json.dumps([f"{shard.name}{i}" for i in range(2)])


def write_shard(path: Path, sigmas: list[float]) -> None:
    latents = torch.randn(2, 5, 1, 1, 2, 2, generator=torch.Generator().manual_seed(len(path.name)))
    save_tensors(path, {"latents": latents}, {"sigmas": json.dumps(sigmas), "ids": ids_of(path)})


def test_pairs_come_back_in_the_manifests_order(pairs):
    loaded = Pairs.load(pairs)
    assert loaded.shape == (1, 1, 2, 2)
    whole = torch.cat([load_tensors(pairs / f"pairs-000{i}.safetensors")[0]["latents"] for i in range(2)])
    assert torch.equal(loaded.trajectories([3, 0, 1], [0, 2, 4]), whole[[3, 0, 1]][:, [0, 2, 4]])
    assert loaded.prompts == ["a 0", "a 1", "a 0", "a 1"]
    assert loaded.sigmas.tolist() == NODES


@pytest.mark.parametrize(("steps", "indices"), [(4, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (1, [0, 4])])
def test_student_steps_are_found_among_the_pairs_nodes(pairs, steps, indices):
    assert Pairs.load(pairs).node_indices(FlowSchedule(5), steps) == indices


@pytest.mark.parametrize(("shift", "steps", "wanted"), [(8, 4, "1000, 960, 888.889, 727.273"), (5, 3, "1000, ")])
def test_student_steps_of_another_schedule_are_refused_with_both_sets(pairs, shift, steps, wanted):
    """Upstream defect 10: a student trains on pairs of another shift without an error."""
    with pytest.raises(FilmstillError, match=r"student\.denoising_steps") as error:
        Pairs.load(pairs).node_indices(FlowSchedule(shift), steps)
    assert "1000, 937.5, 833.333, 625" in str(error.value)
    assert f"(timesteps {wanted}" in str(error.value)
    assert "\n" not in str(error.value)


def test_shards_of_two_schedules_are_refused(pairs):
    write_shard(pairs / "pairs-0000.safetensors", [*FlowSchedule(8).nodes(4).tolist(), 0.0])
    with pytest.raises(FilmstillError, match=r"pairs-000[01]"):
        Pairs.load(pairs)


def test_damaged_missing_and_miscounted_shards_are_refused(pairs):
    shard = pairs / "pairs-0001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(FilmstillError, match=r"pairs-0001\.safetensors: damaged"):
        Pairs.load(pairs)
    shard.unlink()
    with pytest.raises(FilmstillError, match=r"pairs-0001\.safetensors: no such file"):
        Pairs.load(pairs)
    facts = {"sigmas": json.dumps(NODES), "ids": ids_of(shard)}
    save_tensors(shard, {"latents": torch.zeros(1, 5, 1, 1, 2, 2)}, facts)
    with pytest.raises(FilmstillError, match=r"pairs-0001\.safetensors: holds other pairs than the manifest lists"):
        Pairs.load(pairs)
    save_tensors(shard, {"latents": torch.zeros(2, 5, 1, 1, 2, 2)})
    with pytest.raises(FilmstillError, match=r"pairs-0001\.safetensors: is not a shard of pairs"):
        Pairs.load(pairs)
    shutil.copy(pairs / "pairs-0000.safetensors", shard)
    with pytest.raises(FilmstillError, match=r"pairs-0001\.safetensors: holds other pairs than the manifest lists"):
        Pairs.load(pairs)


@pytest.mark.parametrize("content", [None, b"", b"PAR1 but not really"])
def test_a_missing_or_garbled_manifest_is_one_line(pairs, content):
    manifest = pairs / "manifest.parquet"
    manifest.unlink() if content is None else manifest.write_bytes(content)
    with pytest.raises(FilmstillError, match=r"manifest\.parquet") as error:
        Pairs.load(pairs)
    assert "\n" not in str(error.value)
