"""Rollouts that go on across steps (LongLive, arXiv:2509.22622): every step generates the next clip of a stream.

All updates of a step go on from the same frames, each with noise of its own, and the generator's clip, the last one, is
kept. What is carried on are frames, not their keys and values: the next step computes those with its own weights, as
at a change of prompt by `recache`, but behind the sink. So no update reads what older weights have written, and the
state is a few latents per sample, which a checkpoint holds.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from filmstill.models.attention import BlockCausal
from filmstill.params.distill import Distill
from filmstill.runtime import distributed


@dataclass(frozen=True)
class CarriedStreams:
    """The streams of a batch, one per sample. All begin and end at the same steps.

    clips: number of clips, and so of steps, per stream. rows: this rank's samples. frames: the frames of every sample's
    stream that the next step goes on from, [batch, context frames, C, H, W]: the attention sink, of `sink_frames`, and
    the last ones. Only this rank's are current.
    """

    clips: int
    rows: list[int]
    frames: Tensor
    sink_frames: int = 0

    @classmethod
    def of(
        cls,
        params: Distill,
        latent_shape: tuple[int, int, int, int],
        attention: BlockCausal,
        micro_batches: list[range],
        device: torch.device,
    ) -> "CarriedStreams | None":
        """Streams of `params.rollout_frames`, or None if rollouts are not carried on.

        latent_shape: of a clip, (F, C, H, W). micro_batches: this rank's samples.
        """
        if not params.carry_on:
            return None
        clip_frames, *frame = latent_shape
        assert params.rollout_frames is not None  # params/distill.py
        frames = torch.zeros(params.batch, carried_frames(attention, clip_frames), *frame, device=device)
        rows = [sample for samples in micro_batches for sample in samples]
        return cls(params.rollout_frames // clip_frames, rows, frames, attention.sink_frames)

    @property
    def context_frames(self) -> int:
        """Number of frames that a step goes on from."""
        return self.frames.shape[1]

    def number(self, index: int) -> int:
        """Position, from 0, of a step's clip in its stream."""
        return index % self.clips

    def context(self, samples: range) -> Tensor:
        """The frames that these samples go on from, [len(samples), context frames, C, H, W], sharing memory."""
        return self.frames[samples.start : samples.stop]

    def keep(self, samples: range, frames: Tensor) -> None:
        """Keep what the next step goes on from, of all the frames of these rollouts: [len(samples), F, C, H, W].

        They begin with the sink.
        """
        rows, sink = self.context(samples), self.sink_frames
        rows[:, :sink] = frames.detach()[:, :sink]
        rows[:, sink:] = frames.detach()[:, sink - self.context_frames :]

    def state(self) -> Tensor:
        """`frames`, current for all samples; what is written into it continues. Collective: every rank must call it."""
        places = [row for rows in distributed.all_gather(self.rows) for row in rows]
        self.frames[places] = distributed.all_gather_rows(self.frames[self.rows])
        return self.frames


def carried_frames(attention: BlockCausal, clip_frames: int) -> int:
    """Number of frames that are carried on: a whole window, whose first frames give the others a context."""
    assert attention.window_frames is not None  # params/schema.py
    return attention.whole_blocks(min(attention.window_frames, clip_frames))
