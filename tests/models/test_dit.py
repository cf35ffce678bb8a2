"""VideoDiT compared with diffusers' WanTransformer3DModel, and its kinds of attention with each other."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from caches import context
from filmstill.formats.tensor_names import to_diffusers
from filmstill.models.attention import BlockCausal, FrameMask, attend, frame_mask
from filmstill.models.dit import DiTConfig, SelfAttention, VideoDiT
from filmstill.models.kv_cache import KVCache
from goldens import TINY, assert_close, pad_text, swap, tiny

PARITY, SAME = 2e-5, 1e-5
SIZES = {
    "one layer, one head": (DiTConfig(16, 24, 1, 1, 8, 12, 4), (1, 4, 4)),
    "heads of 12": (TINY, (3, 4, 6)),
    "wide, odd tokens": (DiTConfig(96, 160, 6, 3, 64, 40, 16), (5, 6, 10)),
}
WAN_1_3B = DiTConfig(dim=1536, ffn_dim=8960, num_heads=12, num_layers=30, freq_dim=256, text_dim=4096, in_channels=16)
ATTENTIONS = {
    "blocks": BlockCausal(2),
    "ragged": BlockCausal(3),
    "first alone": BlockCausal(2, independent_first=True),
    "window": BlockCausal(2, window_frames=4),
    "window and sink": BlockCausal(2, window_frames=4, sink_frames=1),
}
by_attention = pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS.keys())


def randomised(config: DiTConfig) -> VideoDiT:
    """A network with random parameters; matrices are slices of one table, since 1.4 billion draws take long."""
    with torch.device("meta"):
        model = VideoDiT(config)
    dice = torch.Generator().manual_seed(0)
    sizes = {name: p.shape for name, p in model.state_dict().items()}
    table = torch.randn(max(map(torch.Size.numel, sizes.values())) + 100_003, generator=dice) * config.dim**-0.5
    tensors = {}
    for number, (name, shape) in enumerate(sizes.items()):
        start = 7919 * number % 100_003
        drawn = table[start : start + shape.numel()].view(shape)
        if name.endswith("weight") and "norm" in name:
            drawn = 1 + 0.3 * torch.randn(shape, generator=dice)
        elif len(shape) == 1 or "modulation" in name:
            drawn = 0.3 * torch.randn(shape, generator=dice)
        tensors[name] = drawn
    model.load_state_dict(tensors, assign=True)
    return model.requires_grad_(False)


def theirs(model: VideoDiT) -> torch.nn.Module:
    """diffusers' network with the same weights under diffusers' names."""
    from diffusers import WanTransformer3DModel

    c = model.config
    with torch.device("meta"):
        other = WanTransformer3DModel(
            num_attention_heads=c.num_heads,
            attention_head_dim=c.dim // c.num_heads,
            in_channels=c.in_channels,
            out_channels=c.in_channels,
            text_dim=c.text_dim,
            freq_dim=c.freq_dim,
            ffn_dim=c.ffn_dim,
            num_layers=c.num_layers,
        )
    other.load_state_dict({to_diffusers(n): p for n, p in model.state_dict().items()}, strict=True, assign=True)
    other.rope = type(other.rope)(c.dim // c.num_heads, (1, 2, 2), 1024)  # its tables are not in the state dict
    return other


def latents(config: DiTConfig, batch: int, frames: int, height: int, width: int, seed: int = 1) -> Tensor:
    shape = (batch, frames, config.in_channels, height, width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("config", "size"), SIZES.values(), ids=SIZES.keys())
@torch.no_grad()
def test_equals_diffusers(config, size):
    model = randomised(config)
    x, t = latents(config, 2, *size), torch.tensor([937.5, 20.0])
    text = torch.randn(2, 7, config.text_dim, generator=torch.Generator().manual_seed(2))
    expected = theirs(model)(swap(x), t, text, return_dict=False)[0]
    assert_close(swap(model(x, t, model.read_text(text))), expected, PARITY)


@torch.no_grad()
def test_equals_diffusers_at_the_true_size_of_wan_1_3b():
    model = randomised(WAN_1_3B)
    assert sum(p.numel() for p in model.parameters()) == 1_418_996_800
    x, t = latents(WAN_1_3B, 1, 2, 8, 8), torch.tensor([625.0])
    text = pad_text([torch.randn(5, 4096, generator=torch.Generator().manual_seed(2))], 512)
    expected = theirs(model)(swap(x), t, text, return_dict=False)[0]
    assert_close(swap(model(x, t, model.read_text(text))), expected, PARITY)


@torch.no_grad()
def test_prompts_of_different_length_do_not_touch_one_another():
    model = tiny("causal")
    text = pad_text([torch.randn(n, 16, generator=torch.Generator().manual_seed(n)) for n in (1, 5, 8)], 8)
    x, t = latents(TINY, 3, 4, 4, 6), torch.tensor([900.0, 500.0, 10.0])
    together = model(x, t, model.read_text(text), attention=BlockCausal(2))
    for i in range(3):
        alone = model(x[i : i + 1], t[i : i + 1], model.read_text(text[i : i + 1]), attention=BlockCausal(2))
        assert_close(together[i : i + 1], alone, SAME)


@by_attention
@pytest.mark.parametrize("context_t", [0.0, 125.0])
@torch.no_grad()
def test_teacher_forcing_is_a_stream_over_clean_context_at_once(attention, context_t):
    """Blocks with the KV cache equal one pass over clean and noisy frames, for any noise level of the clean frames."""
    model, frames = tiny("causal"), 8
    clean, noisy = latents(TINY, 2, frames, 4, 6, seed=1), latents(TINY, 2, frames, 4, 6, seed=2)
    t = torch.rand(2, frames, generator=torch.Generator().manual_seed(3)) * 1000
    text = model.read_text(torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(4)))
    clean_t = torch.full((2, frames), context_t)
    at_once = model(noisy, t, text, attention=attention, clean=clean, clean_t=clean_t if context_t else None)
    cache, pieces = KVCache(attention, frames), []
    for start, end in attention.blocks(frames):
        pieces.append(model(noisy[:, start:end], t[:, start:end], text, cache=cache))
        model.remember(clean[:, start:end], clean_t[:, start:end], text, cache)
    assert_close(torch.cat(pieces, 1), at_once, SAME)


@by_attention
@torch.no_grad()
def test_a_stream_of_its_own_frames_is_the_masked_sequence(attention):
    model, frames = tiny("causal"), 9
    x = latents(TINY, 2, frames, 4, 6)
    t = torch.rand(2, frames, generator=torch.Generator().manual_seed(3)) * 1000
    text = model.read_text(torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(4)))
    masked = model(x, t, text, attention=attention)
    cache, pieces = KVCache(attention, frames), []
    for start, end in attention.blocks(frames):
        block = (x[:, start:end], t[:, start:end], text)
        pieces.append(model(*block, cache=cache))
        model.remember(*block, cache)
    assert_close(torch.cat(pieces, 1), masked, SAME)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@by_attention
@pytest.mark.parametrize("frame_tokens", [6, 128])  # 128 is FlexAttention's block size (defect 7)
@pytest.mark.parametrize("teacher_forcing", [False, True])
def test_flex_attention_reads_the_mask_as_sdpa_does(attention, frame_tokens, teacher_forcing):
    """The block mask and the dense mask of the same frames agree; uncompiled, on the CPU."""
    from torch.nn.attention.flex_attention import flex_attention

    mask = frame_mask(attention, 5, frame_tokens, teacher_forcing, torch.device("cpu"))
    length = len(mask.visible) * frame_tokens
    q, k, v = torch.randn(3, 1, 2, length, 16, generator=torch.Generator().manual_seed(0)).unbind()
    dense = attend(q, k, v, mask)
    flexed = flex_attention(q, k, v, block_mask=mask.block_mask)
    assert_close(flexed.transpose(1, 2).flatten(2), dense, SAME)


def test_frames_that_nobody_sees_change_nothing():
    mask = FrameMask(torch.tensor([[True, False], [True, True]]), 3, torch.device("cpu"))
    q, k, v = torch.randn(3, 1, 2, 6, 16, generator=torch.Generator().manual_seed(0)).unbind()
    before = attend(q, k, v, mask)
    k[:, :, 3:], v[:, :, 3:] = 7.0, -7.0
    after = attend(q, k, v, mask)
    assert torch.equal(before[:, :3], after[:, :3]) and not torch.equal(before[:, 3:], after[:, 3:])


@pytest.mark.parametrize("teacher_forcing", [False, True])
def test_checkpointing_changes_no_gradient(teacher_forcing):
    gradients = []
    for activation_checkpointing in (False, True):
        model = tiny("causal")
        model.activation_checkpointing = activation_checkpointing
        x = latents(TINY, 1, 4, 4, 6)
        text = model.read_text(torch.randn(1, 8, 16, generator=torch.Generator().manual_seed(4)))
        clean = x.flip(1) if teacher_forcing else None
        model(x, torch.tensor([500.0]), text, attention=BlockCausal(2), clean=clean).square().sum().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    assert all(torch.equal(gradients[0][n], gradients[1][n]) for n in gradients[0])


def test_tables_made_while_sampling_serve_training():
    """Cached tables must not be tensors of inference mode, which cannot be saved for a backward pass."""
    model, x, attention = tiny("causal"), latents(TINY, 1, 5, 4, 10), BlockCausal(2)
    words = torch.randn(1, 8, 16, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        model(x, torch.tensor([500.0]), model.read_text(words), attention=attention)
    model(x, torch.tensor([500.0]), model.read_text(words), attention=attention).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@torch.no_grad()
def test_bfloat16_is_near_float32_and_keeps_what_must_be_exact():
    """Matrix products, keys and values are bfloat16; timesteps, modulation and latents stay float32."""
    model = tiny("causal")
    x, t = latents(TINY, 2, 4, 4, 6), torch.tensor([900.0, 500.0])
    words = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(4))
    exact = model(x, t, model.read_text(words))
    model.precision = torch.bfloat16
    text = model.read_text(words)
    near = model(x, t, text)
    assert near.dtype == torch.float32
    assert 1e-4 < (near - exact).abs().max() / exact.abs().max() < 3e-2
    cache = KVCache(BlockCausal(4), 8)
    model.remember(x, t, text, cache)
    assert [cached.dtype for cached in context(cache, 0, 4)] == [torch.bfloat16] * 2
    assert model._embed_time(t)[1].dtype == torch.float32


@torch.no_grad()
def test_cudas_autocast_leaves_queries_and_keys_in_bfloat16(monkeypatch: pytest.MonkeyPatch):
    """CUDA's autocast rules differ from the CPU's, e.g. norms in float32; fake tensors show them without a GPU."""
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda *_: False)
    monkeypatch.setattr(torch.amp.autocast_mode, "amp_definitely_not_available", lambda *_: False, raising=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    with FakeTensorMode():
        with torch.device("meta"):
            layer = SelfAttention(48, 4).requires_grad_(False)
        weights = {name: torch.empty(p.shape, device="cuda") for name, p in layer.state_dict().items()}
        layer.load_state_dict(weights, assign=True)
        x, rope = torch.empty(1, 6, 48, device="cuda"), torch.empty(6, 6, device="cuda", dtype=torch.complex64)
        with torch.autocast("cuda", torch.bfloat16):
            plain = F.rms_norm(x.bfloat16(), (48,))
            keys, values = layer.read(x, rope)
    assert plain.dtype == torch.float32  # what autocast does without our RMSNorm
    assert keys.dtype == values.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("shape", "prompts", "message"),
    [
        ((1,), 2, r"t: has shape \[1\], allowed: \[B\] or \[B, F\] = \[2, 3\], as x has"),
        ((3,), 2, r"t: has shape \[3\], allowed"),
        ((2, 1), 2, r"t: has shape \[2, 1\], allowed"),
        ((3, 2), 2, r"t: has shape \[3, 2\], allowed"),
        ((), 2, r"t: has shape \[\], allowed"),
        ((2,), 1, "text: is of 1 prompts, allowed: one per sample of x, 2"),
        ((2,), 3, "text: is of 3 prompts, allowed: one per sample of x, 2"),
    ],
)
@torch.no_grad()
def test_timesteps_and_prompts_of_another_batch_are_refused(shape, prompts, message):
    """Both would broadcast: one timestep or prompt would silently serve every sample."""
    model, x = tiny("causal"), latents(TINY, 2, 3, 4, 6)
    text = model.read_text(torch.zeros(prompts, 5, TINY.text_dim))
    for call in (
        lambda: model(x, torch.zeros(shape), text),
        lambda: model.remember(x, torch.zeros(shape), text, KVCache(BlockCausal(3), 3)),
    ):
        with pytest.raises(ValueError, match=message):
            call()
