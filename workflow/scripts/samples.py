"""One arm of the samples: `python workflow/scripts/samples.py ARM OUT TURN` from the repository's root.

TURN is the lock file by which arms are timed one at a time; - in a SLURM job, which has cores of its own.
"""

import json
import sys
from pathlib import Path

from filmstill.runtime.exit import exit_code, run_script
from filmstill.work.shard import inputs_unchanged, report_done, shared_machine


def make_arm(arm: str, out: Path) -> None:
    """Write one arm's latents [N, F, C, H, W], and beside them its clips and its timing.

    Seconds per clip: its batch's seconds divided by the batch's clips. Decoding counts, loading the network does not,
    nor does the first of several batches (None), which faults the process's memory in.
    """
    import torch

    from filmstill.evaluate.arms import Timed, build, timed
    from filmstill.evaluate.clips import FINITE, clip_of
    from filmstill.evaluate.requests import requests
    from filmstill.params.load import section
    from filmstill.params.samples import Samples
    from filmstill.runtime.files import write_json
    from filmstill.runtime.tensor_files import save_tensors
    from filmstill.runtime.video import save_video
    from filmstill.training.setup import Setup

    params, setup = section(Samples, "samples"), Setup.prepared()
    table = requests(params, arm)
    if arm != "real":
        setup.encoder.prepare([*table["text"].tolist(), setup.text.negative])
    made_by, codec = build(arm, params, setup), setup.codec(params.fast_decoder)
    columns = [table[name].tolist() for name in ("prompt", "text", "seed")]

    def run(rows: slice) -> Timed:
        return timed(lambda: made_by.stream(*(column[rows] for column in columns)), codec)

    run(slice(0, 1))  # warm up
    first_block = min(run(slice(0, 1)).first_block for _ in range(2))  # one clip alone: what a viewer waits for
    batches: list[torch.Tensor] = []
    seconds: dict[str, list[float | None]] = {"seconds": [], "network_seconds": []}
    for begin in range(0, len(table), params.batch):
        made = run(slice(begin, begin + params.batch))
        clips, warm = len(made.latents), begin > 0 or len(table) <= params.batch
        batches.append(made.latents.cpu())
        for row, video in enumerate(made.video, begin):
            save_video(video.nan_to_num(), clip_of(out, row), setup.world.fps)
        for name, of_batch in (("seconds", made.seconds), ("network_seconds", made.network_seconds)):
            seconds[name] += [of_batch / clips if warm else None] * clips
        report_done(out, begin + clips)
    latents = torch.cat(batches)
    facts = {"first_block_seconds": first_block, "evaluations_per_clip": made_by.evaluations}
    write_json(out.with_suffix(".json"), {**seconds, **facts})
    finite = latents.isfinite().flatten(1).all(dim=1).tolist()
    save_tensors(out, {"latents": latents}, {FINITE: json.dumps(finite)})


def main() -> None:
    arm, out, turn = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    with shared_machine(None if turn == "-" else Path(turn)) as alone:
        import filmstill.evaluate.arms  # noqa: F401 (torch takes seconds, which no other arm's clock may count)

        with inputs_unchanged("samples", out):
            alone()
            make_arm(arm, out)


if __name__ == "__main__":
    run_script(lambda: exit_code(main))
