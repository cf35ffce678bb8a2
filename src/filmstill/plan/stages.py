"""The plan of a run, stage by stage: memory per phase, operations, GPUs and disk.

The exit step of a training rollout is uniform, so its passes are counted by their mean; of rollouts of several lengths
the time is the mean and the memory that of the longest. Sheets of the student during training count as memory, not as
time. Time is operations / speed; disks and the network between GPUs are part of the efficiency. The small decoder
(samples.fast_decoder) is counted as the VAE, although it takes a fraction of it.
"""

from dataclasses import dataclass, replace
from math import ceil, prod

from filmstill.evaluate.requests import CHANGED_ARM, LONG_ARM, PICTURE_ARM, every_arm, timed_arms
from filmstill.models.attention import BlockCausal
from filmstill.models.dit import DiTConfig
from filmstill.models.flops import (
    Pass,
    TrainingRollout,
    critic_update_flops,
    generator_update_flops,
    prompt_change_flops,
    regression_flops,
    rollout_flops,
    sampling_flops,
)
from filmstill.params.compute import Compute
from filmstill.params.shared import guidance_branches
from filmstill.params.teacher import NOTHING
from filmstill.plan.known_models import UMT5_PARAMETERS, VAE_PARAMETERS
from filmstill.plan.machine import USABLE, Machine
from filmstill.plan.memory import (
    FLOAT32,
    Memory,
    backward_bytes,
    float32_bytes,
    forward_bytes,
    gathered_bytes,
    kv_cache_bytes,
    optimizer_bytes,
    saved_bytes,
)
from filmstill.plan.run import Run
from filmstill.training.checkpoint import KEPT


@dataclass(frozen=True)
class StagePlan:
    """phases: memory of one GPU by phase. flops: in total, on `gpus` GPUs.

    artifacts: bytes of the stage's output on disk. checkpoints: bytes of its checkpoints while it runs.
    """

    name: str
    phases: dict[str, Memory]
    flops: float = 0.0
    gpus: int = 0
    artifacts: float = 0.0
    checkpoints: float = 0.0

    @property
    def peak(self) -> str:
        """The phase with the most memory."""
        return max(self.phases, key=lambda phase: self.phases[phase].total)

    @property
    def memory(self) -> Memory:
        """Memory in the peak phase."""
        return self.phases[self.peak]

    def fits(self, machine: Machine) -> bool:
        return self.memory.total <= USABLE * machine.gpu.memory


def plan(run: Run) -> list[StagePlan]:
    """All stages that take a GPU or much disk; prompts and evaluate take neither."""
    return [stage(run) for stage in (encoding, teacher, ode_pairs, ode_init, distill, samples)]


def encoding(run: Run) -> StagePlan:
    """Encoding of prompts, before the stages that read them; the encoder is freed before they begin."""
    on_gpu = run.wan_encoder and run.params.text.placement != "cpu"
    return StagePlan("encoding", {"encoding": Memory(text=run.size * UMT5_PARAMETERS if on_gpu else 0.0)})


def teacher(run: Run) -> StagePlan:
    """Import of a release, in float32, or training of the embedded world's teacher, on one GPU in float32."""
    if run.params.teacher.released != NOTHING:
        networks = [run.config, *(run.real_scores if run.params.teacher.real_score != NOTHING else [])]
        encoder = 2 * UMT5_PARAMETERS if run.wan_encoder else 0
        codec = FLOAT32 * VAE_PARAMETERS if run.open else 0
        disk = sum(map(float32_bytes, networks)) + codec + encoder
        return StagePlan("teacher", {"import": Memory()}, artifacts=disk)
    single = Run(replace(run.params, compute=Compute()), replace(run.machine, gpus=1, sharding="none"))
    params, weights = run.params.teacher, float32_bytes(run.config)
    whole = run.clip().whole(params.batch)
    flops = params.total_steps * regression_flops(run.config, whole, activation_checkpointing=False)
    update = _regression(single, single.trained(1, averaged=True, muon=True), whole, [])
    checkpoints = _checkpoints(2 * weights + optimizer_bytes(run.config, muon=True))
    return StagePlan("teacher", {"update": update}, flops, 1, weights, checkpoints)


def ode_pairs(run: Run) -> StagePlan:
    """Guided sampling by the teacher, one GPU per shard."""
    params, config = run.params.ode_pairs, run.config
    branches = guidance_branches(params.guidance_scale)
    flops = params.prompts * sampling_flops(config, run.clip().whole(branches), params.sampling_steps)
    disk = params.prompts * (params.nodes + 1) * prod(run.latent_shape()) * run.size
    batch = min(params.batch, ceil(params.prompts / params.shards))
    phases = {"sampling": _guided(run, [config], branches * batch)}
    return StagePlan("ode_pairs", phases, flops, min(run.machine.gpus, params.shards), disk)


def ode_init(run: Run) -> StagePlan:
    """Block-causal regression of the teacher's trajectories, over whole clips, chained if `ode_init.clips` says so."""
    params, config = run.params.ode_init, run.config
    clip = run.clip(params.clips * run.params.world.frames)
    micro, muon = run.micro_batch("ode_init", params.batch), params.muon_lr is not None
    flops = (
        params.steps * params.batch * regression_flops(config, clip.causal(run.attention), run.activation_checkpointing)
    )
    state = run.trained(1, averaged=False, muon=muon)
    update = _regression(run, state, clip.causal(run.attention, micro), [])
    phases = {"update": update, **run.sheet(state, params.gate.prompts, [])}
    checkpoints = _checkpoints(float32_bytes(config) + optimizer_bytes(config, muon))
    return StagePlan("ode_init", phases, flops, run.machine.gpus, float32_bytes(config), checkpoints)


def distill(run: Run) -> StagePlan:
    """Self-Forcing: critic updates on rollouts without gradients, then a generator update on a rollout with them."""
    params, config = run.params.distill, run.config
    branches, flops = guidance_branches(params.guidance_scale), 0.0
    for start, share in run.loss_windows.shares().items():
        rolled, checkpointing = _rolled(run, start), run.activation_checkpointing
        changes = params.prompt_switch * _prompt_change(run, start, run.attention) if start else 0.0
        image = run.decode_flops(start + 1) if start else 0.0  # the window's first frame; encoding one is little
        critic = image + changes + critic_update_flops(config, rolled, checkpointing)
        generator = (
            image + changes + generator_update_flops(config, run.real_scores[0], branches, rolled, checkpointing)
        )
        flops += share * params.steps * params.batch * (params.critic_updates * critic + generator)
    micro = run.micro_batch("distill", params.batch)
    state = replace(run.trained(2, averaged=True, muon=False), weights=run.frozen(run.real_scores, run.machine.shards))
    phases = {
        "critic update": _regression(run, state, run.clip().whole(micro), run.real_scores),
        **_generator_update(run, state, micro),
        **run.sheet(state, params.gate.prompts, run.real_scores),
    }
    checkpoints = _checkpoints(3 * float32_bytes(config) + 2 * optimizer_bytes(config, muon=False))
    return StagePlan("distill", phases, flops, run.machine.gpus, float32_bytes(config), checkpoints)


def samples(run: Run) -> StagePlan:
    """Clips of every arm, one arm after another on one GPU, decoded block by block; then the rounds of timing.

    What a given frame saves is not counted.
    """
    params = run.params.samples
    world, changed = run.params.world, params.changed(run.params.world.name)
    counts = {LONG_ARM: params.long_prompts, PICTURE_ARM: changed, CHANGED_ARM: changed}
    lengths = {LONG_ARM: params.long_frames, CHANGED_ARM: params.changed_frames}
    long = replace(run.attention, window_frames=params.long_window_frames)
    branches = guidance_branches(params.guidance_scale)
    guided = sampling_flops(run.real_scores[0], run.clip().whole(branches), params.teacher_steps)
    of_arm = {"real": 0.0, "teacher": guided}
    flops = disk = 0.0
    timed = timed_arms(world.name)
    for arm in every_arm(params, world.name):
        count, frames = counts.get(arm, params.clips(world.name)), lengths.get(arm, world.frames)
        blocks = run.clip(frames).blocks(long if arm in lengths else run.attention)
        made = of_arm[arm] if arm in of_arm else _streamed(run, blocks)
        made += _prompt_change(run, params.change_frame, long) if arm == CHANGED_ARM else 0.0
        rounds = params.timing_rounds if arm in timed else 0
        # In each round a single clip and a batch; before the first, a single clip to warm up.
        clocked = rounds * (1 + min(params.batch, count)) + bool(rounds)
        flops += (count + clocked) * (made + run.decode_flops(frames))
        disk += count * prod(run.latent_shape(frames)) * FLOAT32
    return StagePlan("samples", _sampling(run, long), flops, 1, disk)


def _sampling(run: Run, long: BlockCausal) -> dict[str, Memory]:
    """Phases of the teacher's clips, the student's clips and its streams: each generated, then decoded.

    Streams whose prompt changes count as long ones. While arms are timed in turns, the networks of all three are
    loaded.
    """
    params, codec, world = run.params.samples, run.codec_bytes, run.params.world.name
    most = max(params.long_prompts, params.changed(world))
    clips, streams = (min(params.batch, count) for count in (params.clips(world), most))
    networks = _inference(run, [*run.real_scores, run.config, run.config])
    streaming = replace(networks, codec=codec)
    guided = _guided(run, run.real_scores, guidance_branches(params.guidance_scale) * clips)
    made = {
        "teacher": (replace(guided, weights=networks.weights, codec=codec), clips, None),
        "student": (run.streaming(streaming, clips, run.attention), clips, None),
        "long stream": (run.streaming(streaming, streams, long, params.long_frames), streams, params.long_frames),
    }
    phases = {}
    for arm, (memory, batch, frames) in made.items():
        decoding = codec + run.decode_bytes(batch, frames)
        phases[arm] = memory
        phases[f"{arm}, decoding"] = replace(memory, activations=0.0, codec=decoding)
    return phases


def _regression(run: Run, state: Memory, call: Pass, frozen: list[DiTConfig]) -> Memory:
    """Forward and backward pass over whole clips of a network in training, beside `frozen` networks."""
    config, size, activation_checkpointing = run.config, run.size, run.activation_checkpointing
    # Without checkpointing, the working memory of the forward pass is what it saves.
    forward = forward_bytes(config, call, size) if activation_checkpointing else 0.0
    working = max(forward, backward_bytes(config, call, size, activation_checkpointing))
    return replace(
        state,
        copies=run.copies(1, frozen),
        activations=saved_bytes(config, call, size, activation_checkpointing) + working,
        text=run.text_bytes(config, call.batch),
    )


def _streamed(run: Run, blocks: list[Pass]) -> float:
    """Operations of a rollout of the student."""
    return rollout_flops(run.config, blocks, run.params.student.mean_steps(len(blocks)))


def _prompt_change(run: Run, frame: int, attention: BlockCausal) -> float:
    """Operations of a change of the prompt at a frame of a rollout of the student."""
    recache = run.params.student.prompt_change == "recache"
    return prompt_change_flops(run.config, run.clip(frame), attention, recache)


def _rolled(run: Run, start: int, batch: int = 1) -> TrainingRollout:
    """A training rollout whose window begins at frame `start`, with the mean number of passes."""
    blocks = run.attention.block_count(start + run.clip().frames)
    steps, carry_on = run.params.student.mean_steps(blocks), run.params.distill.carry_on
    return TrainingRollout.of(run.clip(), run.attention, start, 0 if carry_on else steps, (steps + 1) / 2, batch)


def _generator_update(run: Run, state: Memory, batch: int) -> dict[str, Memory]:
    """The longest rollout's graph while the real score is evaluated, and then during the backward pass.

    Only the window's blocks have a graph. With checkpointing, their layers are recomputed from the KV cache, which
    therefore stays in memory.
    """
    config, size, clip, activation_checkpointing = run.config, run.size, run.clip(), run.activation_checkpointing
    start = max(run.loss_windows.shares())
    blocks, longest = _rolled(run, start, batch).window, run.clip(start + clip.frames)
    cached = longest.cached_tokens(run.attention, clip.frames)
    graph = sum(saved_bytes(config, block, size, activation_checkpointing) for block in blocks)
    rolled = replace(
        state,
        copies=run.copies(len(blocks), run.real_scores),
        activations=graph + backward_bytes(config, blocks[-1], size, activation_checkpointing),
        kv_cache=kv_cache_bytes(config, batch, cached, size),
        text=run.text_bytes(config, batch),
    )
    both = guidance_branches(run.params.distill.guidance_scale) * batch
    scored = replace(
        rolled,
        activations=graph + forward_bytes(run.real_scores[0], clip.whole(both), size),
        kv_cache=rolled.kv_cache if activation_checkpointing else 0.0,
        text=rolled.text + run.text_bytes(run.real_scores[0], both),
    )
    phases = {"generator update, backward": rolled, "generator update, real score": scored}
    if start and run.open:
        codec = run.codec_bytes + run.decode_bytes(batch, start + 1)
        phases["generator update, window's first frame"] = replace(rolled, activations=graph, codec=codec)
    return phases


def _guided(run: Run, networks: list[DiTConfig], batch: int) -> Memory:
    """Sampling by one of `networks`; `batch` includes all branches of guidance."""
    config = networks[0]
    activations, text = forward_bytes(config, run.clip().whole(batch), run.size), run.text_bytes(config, batch)
    return replace(_inference(run, networks), activations=activations, text=text)


def _inference(run: Run, networks: list[DiTConfig]) -> Memory:
    """Weights of a process that trains nothing: they are not sharded."""
    gathered = gathered_bytes(networks[0], run.size) if run.machine.offload else 0.0
    return Memory(weights=run.frozen(networks), copies=gathered)


def _checkpoints(tensors: float) -> float:
    """Bytes of the checkpoints that are kept and of the one being written."""
    return (KEPT + 1) * tensors
