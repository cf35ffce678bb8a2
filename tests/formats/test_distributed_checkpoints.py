"""Checkpoints of several ranks are named, with the command that makes one file of them."""

import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp

from checkpoints import line_of, same, weights
from filmstill.formats.convert import convert
from filmstill.formats.layouts import read_network
from mini_wan import CONFIG


def test_distributed_checkpoints_name_the_command_that_makes_one_file(tmp_path: Path):
    """And that command does."""
    folder = tmp_path / "step-100/pytorch_model_fsdp_0"
    dcp.save({"model": weights(CONFIG)}, checkpoint_id=folder, no_dist=True)
    (tmp_path / "step-100/optimizer_0").mkdir()
    (tmp_path / "step-100/optimizer_0/__0_0.distcp").touch()
    command = f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} model.pt"
    for source in (folder, folder.parent, folder / "__0_0.distcp"):
        line = line_of(lambda source=source: convert(source, tmp_path / "out", "wan", heads=4))
        assert "torch.distributed.checkpoint, allowed: " in line
        assert f"make one file of it, `{command}`, and pass that" in line
    module, mode, *_ = command.split()[2:]
    subprocess.run([sys.executable, "-m", module, mode, folder, tmp_path / "model.pt"], check=True, capture_output=True)
    assert same(dict(read_network(tmp_path / "model.pt", heads=4).weights), weights(CONFIG))


def test_shards_of_ranks_are_named(tmp_path: Path):
    """A state of DTensors as one rank saves it; torch.distributed.tensor is imported or not."""
    script = """
import sys, torch, torch.distributed as dist
from torch.distributed.fsdp import fully_shard
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
linear = torch.nn.Linear(4, 4)
fully_shard(linear, mesh=dist.device_mesh.init_device_mesh("cpu", (1,)))
torch.save(linear.state_dict(), sys.argv[1])
"""
    path = tmp_path / "model_world_size_1_rank_0.pt"
    subprocess.run([sys.executable, "-c", script, path], check=True, capture_output=True)
    line = line_of(lambda: read_network(path))
    assert line.startswith(f"{path}: is one rank's part of sharded tensors (FSDP, DTensor), allowed: a whole")
    assert "dcp_to_torch FOLDER model.pt" in line


def test_a_checkpoint_of_deepspeed_is_named(tmp_path: Path):
    for name in ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"):
        torch.save({"module": weights(CONFIG)}, tmp_path / name)
    line = line_of(lambda: read_network(tmp_path))
    assert line.startswith(f"{tmp_path}: is a checkpoint of DeepSpeed's ZeRO, allowed: one file")
    assert "`python zero_to_fp32.py . model.pt`" in line
