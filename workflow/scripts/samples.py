"""Make one arm of the samples: `python workflow/scripts/samples.py ARM OUT TURN` from the repository's root.

TURN is the lock file that lets one arm at a time be timed; "-" in a SLURM job, whose cores no other arm uses.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from filmstill.runtime.exit import exit_code, run_script
from filmstill.work.shard import inputs_unchanged, report_done, shared_machine

if TYPE_CHECKING:
    from filmstill.params.load import Values


def make_arm(arm: str, out: Path, values: "Values") -> None:
    """Write one arm's latents [N, F, C, H, W] to `out`, and its clips and timing beside it.

    A clip's seconds are its batch's divided by the number of clips in the batch. They include decoding and exclude
    loading the network. The first of several batches is not timed (None): it also pays for page faults.
    """
    import torch

    from filmstill.evaluate.arms import Timed, build, timed
    from filmstill.evaluate.clips import FINITE, clip_of
    from filmstill.evaluate.requests import requests
    from filmstill.params.samples import Samples
    from filmstill.runtime.files import write_json
    from filmstill.runtime.tensor_files import save_tensors
    from filmstill.runtime.video import save_video
    from filmstill.training.setup import Setup

    params, setup = values.section(Samples, "samples"), Setup.prepared(values)
    table = requests(params, arm)
    if arm != "real":
        setup.encoder.prepare([*table["text"].tolist(), setup.text.negative])
    source, codec = build(arm, params, setup), setup.codec(params.fast_decoder)
    columns = [table[name].tolist() for name in ("prompt", "text", "seed")]

    def run(rows: slice) -> Timed:
        return timed(lambda: source.stream(*(column[rows] for column in columns)), codec)

    run(slice(0, 1))  # warm up
    first_block = min(run(slice(0, 1)).first_block for _ in range(2))  # of a single clip: a viewer's waiting time
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
    facts = {"first_block_seconds": first_block, "evaluations_per_clip": source.evaluations}
    write_json(out.with_suffix(".json"), {**seconds, **facts})
    finite = latents.isfinite().flatten(1).all(dim=1).tolist()
    save_tensors(out, {"latents": latents}, {FINITE: json.dumps(finite)})


def main() -> None:
    arm, out, turn = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    with shared_machine(None if turn == "-" else Path(turn)) as alone:
        import filmstill.evaluate.arms  # noqa: F401 (imports torch, which must not slow an arm that is being timed)

        with inputs_unchanged("samples", out) as values:
            alone()
            make_arm(arm, out, values)


if __name__ == "__main__":
    run_script(lambda: exit_code(main))
