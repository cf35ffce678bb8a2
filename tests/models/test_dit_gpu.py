"""VideoDiT on a GPU: compiled FlexAttention, compiled layers and the KV cache beside what the CPU computes."""

import pytest
import torch
from test_dit import by_attention, latents, randomised
from torch import Tensor

from filmstill.models.attention import FrameMask, attend, frame_mask
from filmstill.models.dit import DiTConfig, VideoDiT
from filmstill.models.kv_cache import KVCache
from goldens import assert_close

pytestmark = pytest.mark.gpu

CONFIG = DiTConfig(64, 96, 4, 3, 32, 16, 16)  # heads of 16: the smallest that FlexAttention takes
FRAMES = 9
SAME = {torch.float32: 1e-5, torch.bfloat16: 3e-2}
by_precision = pytest.mark.parametrize("precision", SAME, ids=["float32", "bfloat16"])


@pytest.fixture(autouse=True)
def compiled_anew() -> None:
    """Every test compiles for its own shapes; torch gives up after a few recompilations of one function."""
    torch.compiler.reset()


def on(device: str, precision: torch.dtype = torch.float32) -> VideoDiT:
    model = randomised(CONFIG).to(device)
    model.precision = precision
    return model


def given(device: str) -> tuple[Tensor, Tensor, Tensor]:
    """(latents, timesteps by frame, text) of a batch of two."""
    dice = torch.Generator().manual_seed(3)
    t, words = torch.rand(2, FRAMES, generator=dice) * 1000, torch.randn(2, 8, CONFIG.text_dim, generator=dice)
    return latents(CONFIG, 2, FRAMES, 4, 6).to(device), t.to(device), words.to(device)


@by_precision
@by_attention
@pytest.mark.parametrize("frame_tokens", [6, 128])  # 128 is FlexAttention's block size (defect 7)
@pytest.mark.parametrize("teacher_forcing", [False, True])
def test_compiled_flex_attention_and_its_gradients_are_those_of_the_dense_mask(
    attention, frame_tokens, teacher_forcing, precision
):
    mask = frame_mask(attention, 5, frame_tokens, teacher_forcing, torch.device("cuda"))
    exact = FrameMask(mask.visible, frame_tokens, torch.device("cpu"))
    length, dice = len(mask.visible) * frame_tokens, torch.Generator().manual_seed(0)
    tensors = torch.randn(4, 1, 2, length, 16, generator=dice)
    found = []
    for device, dtype, rule in (("cuda", precision, mask), ("cpu", torch.float64, exact)):
        q, k, v, upward = (x.to(device, dtype) for x in tensors)
        for leaf in (q, k, v):
            leaf.requires_grad_()
        out = attend(q, k, v, rule)
        out.backward(upward.transpose(1, 2).flatten(2))
        found.append([out.detach().cpu(), *(leaf.grad.cpu() for leaf in (q, k, v))])
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours, theirs, SAME[precision])


@by_precision
@torch.no_grad()
def test_a_pass_is_the_cpus(precision):
    x, t, words = given("cuda")
    model, exact = on("cuda", precision), on("cpu")
    ours = model(x, t, model.read_text(words))
    theirs = exact(x.cpu(), t.cpu(), exact.read_text(words.cpu()))
    assert_close(ours.cpu(), theirs, 3 * SAME[precision])


@by_precision
@by_attention
@torch.no_grad()
def test_a_stream_is_the_masked_sequence(attention, precision):
    """The stream attends by scaled_dot_product_attention over its cache, the whole sequence by FlexAttention."""
    model = on("cuda", precision)
    x, t, words = given("cuda")
    text = model.read_text(words)
    masked = model(x, t, text, attention=attention)
    cache, pieces = KVCache(attention, FRAMES), []
    for start, end in attention.blocks(FRAMES):
        block = (x[:, start:end], t[:, start:end], text)
        pieces.append(model(*block, cache=cache))
        model.remember(*block, cache)
    assert_close(torch.cat(pieces, 1), masked, SAME[precision])


@by_precision
@torch.no_grad()
def test_compiled_layers_change_nothing(precision):
    x, t, words = given("cuda")
    model = on("cuda", precision)
    plain = model(x, t, model.read_text(words))
    for layer in model.layers:
        layer.compile()
    assert_close(model(x, t, model.read_text(words)), plain, SAME[precision])
