"""Make one shard of ODE pairs: `python workflow/scripts/ode_pairs.py SHARD OUT` from the repository's root.

Every pair's noise is addressed by seed and prompt, so a shard depends on no other shard. Its header records the
schedule's nodes, which ODE initialisation compares with the student's.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from filmstill.runtime.exit import exit_code, run_script
from filmstill.work.shard import inputs_unchanged, report_done

if TYPE_CHECKING:
    from filmstill.params.load import Values


def make_shard(number: int, out: Path, values: "Values") -> None:
    """Write shard `number`: latents [N, nodes + 1, F, C, H, W] of its N prompts, from noisy to clean."""
    import torch  # here: takes seconds, and an error found before should not wait for it

    from filmstill.artifacts import TEACHER
    from filmstill.diffusion.noise import clip_noise
    from filmstill.diffusion.sample import guided, sample
    from filmstill.models.load import DTYPES
    from filmstill.params.ode_pairs import OdePairs
    from filmstill.runtime.tensor_files import save_tensors
    from filmstill.training.pairs_table import prompts_of
    from filmstill.training.setup import Setup

    params, setup = values.section(OdePairs, "ode_pairs"), Setup.prepared(values)
    torch.set_num_threads(1)  # shards run in parallel
    prompts = prompts_of(params).iloc[number :: params.shards]
    setup.encoder.prepare([*prompts["text"].tolist(), setup.text.negative])
    model, no_text = setup.frozen(TEACHER), setup.no_text()
    keep = [params.sampling_steps // params.nodes * node for node in range(params.nodes)]
    batches = []
    for start in range(0, len(prompts), params.batch):
        rows = prompts.iloc[start : start + params.batch]
        noise = clip_noise(rows["prompt"].tolist(), [setup.seed] * len(rows), 1, setup.latent_shape)[:, 0]
        text = setup.encoder.encode(rows["text"].tolist()).to(setup.device)
        velocity = guided(model, text, no_text, params.guidance_scale)
        latents = sample(velocity, noise.to(setup.device), setup.schedule, params.sampling_steps, keep)
        batches.append(latents.to("cpu", DTYPES[setup.compute.precision]))
        report_done(out, start + len(rows))
    sigmas = [*setup.schedule.nodes(params.nodes).tolist(), 0.0]
    facts = {"ids": json.dumps(prompts["id"].tolist()), "sigmas": json.dumps(sigmas)}
    save_tensors(out, {"latents": torch.cat(batches)}, facts)


def main() -> None:
    number, out = int(sys.argv[1]), Path(sys.argv[2])
    with inputs_unchanged("ode_pairs", out) as values:
        make_shard(number, out, values)


if __name__ == "__main__":
    run_script(lambda: exit_code(main))
