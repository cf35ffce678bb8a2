"""Several videos of one call: their names, and the manifest by which a call that was stopped goes on."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from filmstill.runtime.files import read_json, sha256_of, write_json
from filmstill.serve.prompt_schedule import PromptSchedule
from filmstill.serve.stream_config import StreamConfig


@dataclass(frozen=True)
class Request:
    """One video: its prompts and its seed."""

    prompts: PromptSchedule
    seed: int


@dataclass(frozen=True)
class Batch:
    """The requests by path, and the manifest beside several: what each finished file was made of, by path's name."""

    requests: dict[Path, Request]
    manifest: Path | None
    made_with: str  # digest of student, rollout and given frames

    @classmethod
    def of(
        cls, out: Path, requests: list[Request], student: Path, config: StreamConfig, pixels: Tensor | None
    ) -> "Batch":
        """One request is written to `out`, several get numbers."""
        if len(requests) == 1:
            return cls({out: requests[0]}, None, "")
        paths = [out.with_stem(f"{out.stem}-{n:03d}") for n in range(len(requests))]
        digest = hashlib.sha256(f"{sha256_of(student)} {config}".encode())
        if pixels is not None:
            digest.update(pixels.numpy().tobytes())
        return cls(dict(zip(paths, requests, strict=True)), out.with_suffix(".json"), digest.hexdigest())

    @property
    def paths(self) -> list[Path]:
        """Every file of the batch."""
        return list(self.requests)

    def missing(self) -> dict[Path, Request]:
        """The requests whose file is not there, or is not what the manifest says that it would be."""
        if self.manifest is None:
            return self.requests
        done = read_json(self.manifest) if self.manifest.is_file() else {}
        return {
            path: request
            for path, request in self.requests.items()
            if not path.is_file() or done.get(path.name) != self._entry(request)
        }

    def record(self, path: Path) -> None:
        """Note in the manifest that the file at `path` is finished."""
        if self.manifest is not None:
            done = read_json(self.manifest) if self.manifest.is_file() else {}
            write_json(self.manifest, {**done, path.name: self._entry(self.requests[path])})

    def _entry(self, request: Request) -> dict[str, Any]:
        return {"prompt": str(request.prompts), "seed": request.seed, "made_with": self.made_with}
