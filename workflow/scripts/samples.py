"""Make one shard of an arm, or time every arm: `python workflow/scripts/samples.py SHARD OUT TURN` from the root.

SHARD `timing` times every arm. TURN is the lock file by which it has the machine to itself; "-" in a SLURM job, whose
cores no other shard uses.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from filmstill.runtime.exit import exit_code, run_script
from filmstill.work.shard import inputs_unchanged, report_done, shared_machine

if TYPE_CHECKING:
    from filmstill.params.load import Values


def make_shard(shard: str, out: Path, values: "Values", side_by_side: bool) -> None:
    """Write the latents [N, F, C, H, W] of a shard to `out`, and its clips beside it.

    side_by_side: other shards are made on the same cores.
    """
    import torch

    from filmstill.evaluate.arms import build, timed
    from filmstill.evaluate.clips import FINITE, clip_of
    from filmstill.evaluate.requests import arm_of, requests_by_shard
    from filmstill.params.samples import Samples
    from filmstill.runtime.tensor_files import save_tensors
    from filmstill.runtime.video import save_video
    from filmstill.training.setup import Setup

    params, setup = values.section(Samples, "samples"), Setup.prepared(values)
    if side_by_side and setup.compute.device == "cpu":  # on a GPU, one shard is made after another
        torch.set_num_threads(1)
    arm, table = arm_of(shard), requests_by_shard(params, setup.world.name)[shard]
    if arm != "real":
        texts = [text for column in ("text", "next_text") if column in table for text in table[column]]
        setup.encoder.prepare([*texts, setup.text.negative])
    source, codec = build(arm, params, setup), setup.codec(params.fast_decoder)
    batches: list[torch.Tensor] = []
    for begin in range(0, len(table), params.batch):
        made = timed(source.of(table.iloc[begin : begin + params.batch]), codec)
        batches.append(made.latents.cpu())
        for row, video in enumerate(made.video, begin):
            save_video(video.nan_to_num(), clip_of(out, row), setup.world.fps)
        report_done(out, begin + len(made.latents))
    latents = torch.cat(batches)
    finite = latents.isfinite().flatten(1).all(dim=1).tolist()
    save_tensors(out, {"latents": latents}, {FINITE: json.dumps(finite)})


def time_arms(out: Path, values: "Values") -> None:
    """Write the times of every arm, of `samples.timing_rounds` rounds in turns, into the header of `out`."""
    from filmstill.evaluate.arms import Timed, build, time_in_turns, timed
    from filmstill.evaluate.clips import TIMES
    from filmstill.evaluate.requests import requests, timed_arms
    from filmstill.params.samples import Samples
    from filmstill.runtime.tensor_files import save_tensors
    from filmstill.training.setup import Setup

    params, setup = values.section(Samples, "samples"), Setup.prepared(values)
    world = setup.world.name
    tables = {arm: requests(params, world, arm).head(params.batch) for arm in timed_arms(world)}
    setup.encoder.prepare([*(text for table in tables.values() for text in table["text"]), setup.text.negative])
    sources, codec = {arm: build(arm, params, setup) for arm in tables}, setup.codec(params.fast_decoder)

    def run(arm: str, clips: int) -> Timed:
        return timed(sources[arm].of(tables[arm].head(clips or len(tables[arm]))), codec)

    rows = time_in_turns({arm: partial(run, arm) for arm in tables}, params.timing_rounds)
    passes = {arm: source.evaluations for arm, source in sources.items()}
    times = [{**row, "evaluations_per_clip": passes[str(row["arm"])]} for row in rows]
    save_tensors(out, {}, {TIMES: json.dumps(times)})
    report_done(out, params.timing_rounds)


def main() -> None:
    shard, out, turn = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    with shared_machine(None if turn == "-" else Path(turn)) as alone:
        import filmstill.evaluate.arms  # noqa: F401 (imports torch, which must not slow arms that are being timed)
        from filmstill.evaluate.requests import TIMING

        with inputs_unchanged("samples", out) as values:
            if shard == TIMING:
                alone()
                time_arms(out, values)
            else:
                make_shard(shard, out, values, side_by_side=turn != "-")


if __name__ == "__main__":
    run_script(lambda: exit_code(main))
