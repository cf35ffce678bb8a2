"""Which points of a trajectory ODE initialisation trains on."""

from itertools import pairwise

import torch

from filmstill.models.attention import BlockCausal
from filmstill.training.ode_init import draw_nodes

NODES, FRAMES, ATTENTION = 4, 12, BlockCausal(3)


def drawn(steps: int, attention: BlockCausal = ATTENTION) -> torch.Tensor:
    """Node of every frame [steps * 8, F] over many steps of eight samples."""
    return torch.cat([draw_nodes(attention, FRAMES, NODES, 0, step, range(8)) for step in range(steps)])


def test_no_sample_is_all_clean():
    """Defect 17: the released loss is NaN when every drawn timestep is 0. Here the last block is never clean."""
    nodes = drawn(200)
    assert (nodes[:, -3:] < NODES).all()
    assert (nodes[:, :-3] == NODES).any(), "earlier blocks are clean now and then: a rollout's context is"


def test_a_block_has_one_node_and_every_node_comes():
    nodes = drawn(50)
    by_block = nodes.unflatten(1, (4, 3))
    assert (by_block == by_block[:, :, :1]).all()
    assert [set(block.flatten().tolist()) for block in by_block.unbind(1)] == [{0, 1, 2, 3, 4}] * 3 + [{0, 1, 2, 3}]


def test_blocks_differ_in_length_with_an_independent_first_frame():
    nodes = drawn(20, BlockCausal(3, independent_first=True))
    edges = [0, 1, 4, 7, 10, 12]
    assert all((nodes[:, a:b] == nodes[:, a : a + 1]).all() for a, b in pairwise(edges))
    assert not (nodes[:, 0] == nodes[:, 1]).all()
