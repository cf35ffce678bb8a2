"""Several videos of one call: their names, and the manifest by which a call that was stopped goes on."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from filmstill.errors import FilmstillError
from filmstill.runtime.files import read_json, sha256_of, write_json
from filmstill.serve.options import PIPE
from filmstill.serve.prompt_schedule import PromptSchedule


def numbered(out: Path, count: int) -> list[Path]:
    """The paths of `count` videos: `out`, or out-000, out-001, …. Raises FilmstillError for several on a pipe."""
    if count == 1:
        return [out]
    if out == Path(PIPE):
        raise FilmstillError(f"--out: is {PIPE}, the standard output, allowed: for one stream; these are {count}")
    return [out.with_stem(f"{out.stem}-{number:03d}") for number in range(count)]


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
    made_with: str  # digest of the files, the rollout, the given frames and how they are computed

    @classmethod
    def of(
        cls, paths: list[Path], requests: list[Request], files: list[Path], settings: str, pixels: Tensor | None
    ) -> "Batch":
        """One request per path; several have a manifest.

        files: student, codec and the text encoder's. settings: all else that decides what is made, as text. pixels: of
        the given frames.
        """
        if len(requests) == 1:
            return cls({paths[0]: requests[0]}, None, "")
        digest = hashlib.sha256(" ".join([*map(sha256_of, files), settings]).encode())
        if pixels is not None:
            digest.update(pixels.numpy().tobytes())
        manifest = paths[0].with_name(f"{paths[0].stem.removesuffix('-000')}.manifest.json")
        return cls(dict(zip(paths, requests, strict=True)), manifest, digest.hexdigest())

    def missing(self) -> dict[Path, Request]:
        """The requests whose file is not there, or is not what the manifest says that it would be."""
        if self.manifest is None:
            return self.requests
        done = self._done()
        return {
            path: request
            for path, request in self.requests.items()
            if not path.is_file() or done.get(path.name) != self._entry(request)
        }

    def forget(self, path: Path) -> None:
        """Take the file at `path`, which is about to be written, out of the manifest."""
        if self.manifest is not None and path.name in (done := self._done()):
            write_json(self.manifest, {name: entry for name, entry in done.items() if name != path.name})

    def record(self, path: Path) -> None:
        """Note in the manifest that the file at `path` is finished."""
        if self.manifest is not None:
            write_json(self.manifest, {**self._done(), path.name: self._entry(self.requests[path])})

    def _done(self) -> dict[str, Any]:
        """The manifest's entries."""
        return read_json(self.manifest) if self.manifest is not None and self.manifest.is_file() else {}

    def _entry(self, request: Request) -> dict[str, Any]:
        return {"prompt": str(request.prompts), "seed": request.seed, "made_with": self.made_with}
