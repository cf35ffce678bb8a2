"""Paths that a command was given."""

import os
from pathlib import Path


def given_path(text: str) -> Path:
    """A path on the command line, relative to the folder in which the command was given; ~ is the home folder.

    A shell leaves the ~ of `--out=~/x.mp4` and of a quoted path.
    """
    path = Path(os.path.expanduser(text))
    return path.absolute() if repository_above() else path


def repository_above() -> Path | None:
    """The repository's root if the current folder is below it; None in the root itself and outside."""
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / "dvc.yaml").is_file()), here)
    return None if root == here else root
