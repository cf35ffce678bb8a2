"""The student's causal few-step rollout: one class for training and serving.

For each block of frames: start from noise, predict x0 at each denoising step and noise it again to the next sigma,
yield the last x0, then run the network once more on it at the context noise level to append it to the KV cache.

In training, `exit_step` is the denoising step whose prediction is the block and carries the gradient; the steps before
it run without (Self Forcing, arXiv:2506.08009, algorithm 1). The context in the KV cache is detached. With a `window`,
this holds for the blocks in it only: the blocks before it are made as in serving, without a gradient.

A rollout may begin with given frames, of a picture, a clip or another rollout: they are context like any others. Its
prompt may change from block to block; what then becomes of the context is `RolloutConfig.prompt_change`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from filmstill.diffusion.schedule import TIMESTEPS, FlowSchedule, add_noise, velocity_to_x0
from filmstill.models.attention import BlockCausal
from filmstill.models.dit import VideoDiT
from filmstill.models.kv_cache import KVCache
from filmstill.models.prompts_by_frame import TextKV
from filmstill.params.student import Student

Noise = Callable[[int, int], Tensor]  # (first frame, end frame) to [B, noises, frames, C, H, W]
TextAt = Callable[[int], TextKV]  # first frame of a block to its prompt; the same object as long as it does not change


@dataclass(frozen=True)
class RolloutConfig:
    """Rollout of a student: sigmas of the denoising steps, attention, and sigma of the context (0: clean).

    first_sigmas: those of the first block; (): those of the others.
    prompt_change: what a new prompt does to the context: `keep` leaves it, `recache` computes the frames of the last
    window anew under the new prompt (LongLive, arXiv:2509.22622), as if the stream began with them, which drops the
    sink, and `cut` keeps the sink and the last `kept_frames` (Infinity-RoPE, arXiv:2511.20649).
    """

    sigmas: tuple[float, ...]
    attention: BlockCausal
    context_sigma: float = 0.0
    prompt_change: str = "keep"
    kept_frames: int = 2
    first_sigmas: tuple[float, ...] = ()

    @classmethod
    def of(cls, schedule: FlowSchedule, student: Student) -> "RolloutConfig":
        """The rollout described by section `student` of params.yaml."""
        sigmas = tuple(schedule.nodes(student.denoising_steps).tolist())
        first = tuple(schedule.nodes(student.steps_of_first_block).tolist())
        attention, change = BlockCausal.of(student), student.prompt_change
        return cls(sigmas, attention, student.context_noise, change, student.kept_frames, first)

    @property
    def noises(self) -> int:
        """Noise tensors per frame: one per denoising step, and one for context that is not clean."""
        return max(len(self.sigmas), len(self.first_sigmas)) + (self.context_sigma > 0)

    def sigmas_at(self, frame: int) -> tuple[float, ...]:
        """Sigmas of the denoising steps of the block that begins at `frame`."""
        return self.first_sigmas if self.first_sigmas and not frame else self.sigmas

    def evaluations(self, frames: int) -> float:
        """Network evaluations per clip of `frames`, in passes over all its frames; context passes are included."""
        steps = sum(len(self.sigmas_at(start)) * (end - start) for start, end in self.attention.blocks(frames))
        return (steps + self.attention.context_frames(frames)) / frames


def rollout(
    model: VideoDiT,
    text: TextKV | TextAt,
    noise: Tensor,
    config: RolloutConfig,
    exit_step: int | Sequence[int] | None = None,
    window: tuple[int, int] | None = None,
    given: Tensor | None = None,
) -> Iterator[Tensor]:
    """Yield the x0 of each block, [B, block frames, C, H, W], which becomes context and must not be modified.

    noise [B, config.noises, F, C, H, W]: noise[:, 0] is the start, noise[:, s] noises the prediction before denoising
    step s, and noise[:, -1] noises the context if config.context_sigma > 0. The rollout draws no random numbers.
    text: of all blocks, or as of `rollout_stream`, as are the other arguments.
    """
    text_at = text if callable(text) else lambda _: text
    frames = noise.shape[2]
    return rollout_stream(
        model, text_at, lambda start, end: noise[:, :, start:end], frames, config, exit_step, window, given
    )


def rollout_stream(
    model: VideoDiT,
    text: TextAt,
    noise: Noise,
    frames: int | None,
    config: RolloutConfig,
    exit_step: int | Sequence[int] | None = None,
    window: tuple[int, int] | None = None,
    given: Tensor | None = None,
) -> Iterator[Tensor]:
    """`rollout` of a clip of `frames` frames (None: without end) whose noise and prompt are made block by block.

    exit_step: index of the denoising step whose prediction is yielded, with a gradient if grad mode is on, of every
    block or one per block; None: the last. window: (first frame, end frame); a block that starts outside it exits at
    the last step, without a gradient. None: all frames. given: x0 of the first frames, [B, G, C, H, W], which are
    yielded as they are; where they end inside a block, the rest of it is made beside them.
    Under a local window its memory does not depend on `frames`.
    """
    graph = frames is not None and torch.is_grad_enabled()
    made = Rollout(model, config, noise, frames, frames - (window[0] if window else 0) if frames and graph else 0)
    for block, (start, end) in enumerate(config.attention.blocks(frames)):
        made.change_prompt(text(start))
        in_window = window is None or window[0] <= start < window[1]
        exits = exit_step[block] if isinstance(exit_step, Sequence) else exit_step
        last = exits if in_window and exits is not None else len(config.sigmas_at(start)) - 1
        known = None if given is None else given[:, start:end]
        x0 = made.block(end, last, in_window and torch.is_grad_enabled(), known)
        yield x0
        if end != frames:
            made.remember(x0.detach())


class Rollout:
    """A rollout in progress: its prompt, its KV cache, and the frames that a change of prompt needs again."""

    def __init__(
        self, model: VideoDiT, config: RolloutConfig, noise: Noise, frames: int | None, graph_frames: int = 0
    ) -> None:
        """frames: its length, None: without end; graph_frames: length of the part of it that has a gradient."""
        self.model, self.config, self.noise = model, config, noise
        self.total_frames, self.graph_frames = frames, graph_frames
        self.frames = 0  # finished frames
        self.text: TextKV | None = None
        self.cache = KVCache(config.attention, frames, graph_frames)
        self._recent: list[Tensor] = []  # blocks of the last window, if a change of prompt computes them anew

    def change_prompt(self, text: TextKV) -> None:
        """Go on with the prompt `text`; a prompt that is the one before (the same object) changes nothing."""
        before, self.text = self.text, text
        if before is None or before is text:
            return
        if self.config.prompt_change == "recache":
            self._recache()
        elif self.config.prompt_change == "cut":
            end = self.cache.frames
            self.cache.attention = replace(self.config.attention, cuts=((end, end - self.config.kept_frames),))

    def block(self, end: int, last: int, gradient: bool, known: Tensor | None = None) -> Tensor:
        """x0 of the frames up to `end`, by the prediction of denoising step `last`, which may have a gradient.

        known: x0 of the block's first frames, or of all of them.
        """
        noise, sigmas = self.noise(self.frames, end), self.config.sigmas_at(self.frames)
        if known is not None and known.shape[1] == noise.shape[2]:
            return known
        with torch.no_grad():  # only the exit step has a gradient
            xt = noise[:, 0]
            for step in range(last):
                x0 = self._denoise(xt, sigmas[step], noise, known)
                xt = add_noise(x0, noise[:, step + 1], _level(sigmas[step + 1], xt))
        with torch.set_grad_enabled(gradient):
            return self._denoise(xt, sigmas[last], noise, known)

    def _denoise(self, xt: Tensor, sigma: float, noise: Tensor, known: Tensor | None) -> Tensor:
        """x0 predicted from x_t [B, block frames, C, H, W] at sigma; known frames are as they are in a context."""
        level = _level(sigma, xt)
        if known is None or not known.shape[1]:
            return velocity_to_x0(self._velocity(xt, level), xt, level)
        count = known.shape[1]
        level = level[:, None].repeat(1, xt.shape[1])
        level[:, :count] = self.config.context_sigma
        xt = torch.cat([self._as_context(known, noise[:, -1, :count]), xt[:, count:]], dim=1)
        return torch.cat([known, velocity_to_x0(self._velocity(xt, level), xt, level)[:, count:]], dim=1)

    def _velocity(self, xt: Tensor, level: Tensor) -> Tensor:
        return self.model(xt, level * TIMESTEPS, self._prompt(), cache=self.cache)

    @torch.no_grad()
    def remember(self, x0: Tensor) -> None:
        """Append a finished block [B, block frames, C, H, W] to the context, at the context noise level."""
        end = self.frames + x0.shape[1]
        if self.config.prompt_change == "recache":
            self._recent.append(x0)
            limit = self.config.attention.window_frames or end
            while sum(block.shape[1] for block in self._recent[1:]) >= limit:
                del self._recent[0]
        self._append(x0, self.frames)
        self.frames = end

    def _append(self, x0: Tensor, start: int) -> None:
        """Run the network on frames from `start` on, as context."""
        noise = self.noise(start, start + x0.shape[1])[:, -1]
        self.model.remember(
            self._as_context(x0, noise), _level(self.config.context_sigma, x0) * TIMESTEPS, self._prompt(), self.cache
        )

    def _as_context(self, x0: Tensor, noise: Tensor) -> Tensor:
        sigma = self.config.context_sigma
        return add_noise(x0, noise, _level(sigma, x0)) if sigma else x0

    def _recache(self) -> None:
        """Begin anew with the frames of the last window, under the present prompt."""
        start = self.frames - sum(block.shape[1] for block in self._recent)
        left = None if self.total_frames is None else self.total_frames - start
        self.cache = KVCache(self.config.attention, left, self.graph_frames)
        for block in self._recent:
            self._append(block, start + self.cache.frames)

    def _prompt(self) -> TextKV:
        if self.text is None:
            raise ValueError("change_prompt: was not called before the first block")
        return self.text


def _level(sigma: float, x: Tensor) -> Tensor:
    """sigma as a float64 tensor [B]."""
    return torch.full((len(x),), sigma, dtype=torch.float64, device=x.device)
