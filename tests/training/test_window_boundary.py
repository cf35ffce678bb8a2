"""A loss window in mid-stream under a codec whose first latent frame is an image, and the frames that count."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from filmstill.models.attention import BlockCausal
from filmstill.training.loss_windows import LossWindows
from filmstill.training.student_clips import StudentClips
from goldens import tiny
from rollouts import rollout_config
from tiny_training import CARRIED, ENCODER, PROMPTS, SCHEDULE, SHAPE, distillation, networks

SAMPLES, FRAMES, START = range(4), SHAPE[0], 3


class Recording:
    """A codec that keeps what it decodes. A frame's pixels are its latents, and an image's latents are 100 more."""

    def __init__(self) -> None:
        self.decoded: list[Tensor] = []

    def decode_stream(self, blocks: Iterator[Tensor]) -> Iterator[Tensor]:
        for block in blocks:
            self.decoded.append(block)
            yield block

    def encode(self, video: Tensor) -> Tensor:
        return video + 100


def clips(codec: Recording | None, attention: BlockCausal = BlockCausal(3), frames: int = FRAMES) -> StudentClips:  # noqa: B008
    config = rollout_config(SCHEDULE, 2, attention, 0.0)
    shape = (frames, *SHAPE[1:])
    windows = LossWindows(range(START, START + 1), 0.0)
    return StudentClips(tiny("causal"), config, ENCODER, PROMPTS, shape, 0, 4, windows, image_codec=codec)


@pytest.mark.parametrize(
    ("attention", "frames", "first"),
    [(BlockCausal(3), FRAMES, 3), (BlockCausal(1), FRAMES, 1), (BlockCausal(3, independent_first=True), 7, 1)],
)
def test_the_windows_first_frame_is_encoded_as_an_image_and_its_block_does_not_count(
    attention: BlockCausal, frames: int, first: int
):
    codec = Recording()
    latents, _, counted = clips(codec, attention, frames).generate(0, "generator", SAMPLES)
    plain, _, all_counted = clips(None, attention, frames).generate(0, "generator", SAMPLES)
    assert torch.equal(latents[:, 1:], plain[:, 1:])
    assert torch.equal(latents[:, :1], plain[:, :1] + 100)
    stream = torch.cat(codec.decoded, dim=1)
    assert stream.shape[1] == START + 1 and torch.equal(stream[:, -1:], plain[:, :1])
    assert counted.tolist() == [frame >= first for frame in range(frames)]
    unmade = int(attention.independent_first)  # a block that begins before the window has no gradient
    assert all_counted.tolist() == [frame >= unmade for frame in range(frames)]


def test_the_image_has_no_gradient_and_its_block_does_not_count():
    source = clips(Recording())
    latents, _, counted = source.generate(0, "generator", SAMPLES)
    loss = latents[:, 0].sum()
    (gradient,) = torch.autograd.grad(latents[:, 1].sum(), [source.generator.patch_embedding.weight], retain_graph=True)
    (of_image,) = torch.autograd.grad(loss, [source.generator.patch_embedding.weight], allow_unused=True)
    assert gradient.abs().max() > 0 and (of_image is None or not of_image.any()) and not counted[:3].any()


def test_the_first_window_of_a_stream_is_a_clip_as_it_is():
    source = clips(Recording())
    source.windows = LossWindows()
    _, _, counted = source.generate(0, "generator", SAMPLES)
    assert counted.all() and not source.image_codec.decoded


def test_a_stream_that_is_carried_on_is_decoded_from_where_it_goes_on():
    run, codec = distillation(networks(), None, **CARRIED), Recording()
    run.clips.image_codec = codec
    with torch.no_grad():
        before = run.clips.generate(0, "generator", SAMPLES).latents
        assert not codec.decoded
        counted = run.clips.generate(1, "critic0", SAMPLES).counted
    assert torch.equal(torch.cat(codec.decoded, dim=1)[:, :FRAMES], before)
    assert counted.tolist() == 3 * [False] + 3 * [True]
