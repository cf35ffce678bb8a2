"""Remove work folders that no branch needs any more."""

import shutil
import subprocess
from pathlib import Path

from omegaconf import OmegaConf

from filmstill.runtime.workbench import WORK, Inputs, inputs, stages, to_plain


def prune(keep_bytes: int, dry_run: bool) -> None:
    """Remove folders of .work whose key is neither in any branch's dvc.lock nor the working tree's, oldest first.

    Stops once what is left holds no more than `keep_bytes`.
    """
    needed = needed_keys()
    folders = [folder for folder in WORK.glob("*/*") if folder.is_dir()]
    sizes = {folder: sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) for folder in folders}
    left = sum(sizes.values())
    for folder in sorted(folders, key=lambda f: f.stat().st_mtime):
        if (folder.parent.name, folder.name) in needed or left <= keep_bytes:
            continue
        print(f"{'would remove' if dry_run else 'removed'} {folder} ({sizes[folder] / 1e6:.1f} MB)")
        left -= sizes[folder]
        if not dry_run:
            shutil.rmtree(folder)
    print(f"{left / 1e6:.1f} MB in {WORK} {'would be' if dry_run else 'are'} left")


def needed_keys() -> set[tuple[str, str]]:
    """(stage, key) of every branch's dvc.lock and of the sources as they stand."""
    locks = [_show(branch) for branch in _git("for-each-ref", "--format=%(refname)", "refs/heads", "refs/exps").split()]
    if Path("dvc.lock").exists():
        locks.append(Path("dvc.lock").read_text())
    needed = set()
    for lock in filter(None, locks):
        for stage, entry in to_plain(OmegaConf.create(lock))["stages"].items():
            needed.add((stage, Inputs.of_lock(entry).key))
    for stage in stages():
        needed.add((stage, inputs(stage).key))
    return needed


def _show(branch: str) -> str:
    return _git("show", f"{branch}:dvc.lock")


def _git(*words: str) -> str:
    """Output of a git command, empty where it fails (no repository, no such file on that branch)."""
    return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout
