"""A storage writer for torch.distributed.checkpoint whose shards become one folder atomically."""

import os
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint import HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from filmstill.runtime.files import sha256_of
from filmstill.training.checkpoint_folder import DIGEST, discard, unfinished, write_manifest


class Writer(HuggingFaceStorageWriter):
    """Writes into a temporary folder; once every rank's shard is there, renames it to `target`, removes `stale` ones.

    The library calls its methods on every rank, but `finish` on rank 0 only.
    """

    def __init__(self, target: Path, stale: list[Path]) -> None:
        super().__init__(str(unfinished(target)), save_distributed=True)
        self.target, self.stale = target, stale
        self.folder = Path(self.path)

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        super().set_up_storage_writer(is_coordinator, *args, **kwargs)
        self.folder.mkdir(parents=True, exist_ok=True)

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        written = super().write_data(plan, planner)  # synchronous: the shard is on disk now
        for shard in self.folder.glob(f"shard-{plan.storage_data['shard_index']:05d}-*.safetensors"):
            shard.with_suffix(DIGEST).write_text(sha256_of(shard))
        return written

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        names = sorted({written.storage_data.relative_path for rank_results in results for written in rank_results})
        write_manifest(self.folder, self.target, names)
        discard(self.target)
        os.rename(self.folder, self.target)
        for old in self.stale:
            discard(old)
