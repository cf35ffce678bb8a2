"""The checkouts of one repository: where a file that git ignores is found, and which of them keeps the work.

DVC runs an experiment (`dvc exp run --temp`, `--queue`) in a new folder inside the repository, and `git worktree` makes
another checkout beside it. Neither contains what git ignores: cluster.yaml, released weights, `.work`.
"""

import os
from contextlib import suppress
from pathlib import Path

from filmstill.errors import writing_failed

EXPERIMENTS = Path(".dvc/tmp/exps")  # in a repository: the folders in which DVC runs experiments
DVC_ROOT = "DVC_ROOT"  # environment variable that DVC sets for a stage: the repository, also in an experiment's folder


def checkouts(root: Path) -> list[Path]:
    """`root`, then the checkout that it was made from, and so on; the last one is the main checkout."""
    found = [root.resolve()]
    while (origin := experiment_of(found[-1]) or _main_worktree(found[-1])) and origin not in found:
        found.append(origin)
    return found


def experiment_of(root: Path) -> Path | None:
    """The checkout whose experiment DVC runs in `root`; None where `root` is not such a folder.

    DVC makes these folders below the repository, unless a link puts .dvc/tmp elsewhere; DVC_ROOT alone is no proof,
    because the stages of another repository inherit it.
    """
    root = root.resolve()
    named = [Path(os.environ[DVC_ROOT])] if os.environ.get(DVC_ROOT) else []
    for repository in (*root.parents, *named):
        if root.is_relative_to((repository / EXPERIMENTS).resolve()):
            return repository.resolve()
    return None


def _main_worktree(root: Path) -> Path | None:
    """The checkout that `git worktree add` made `root` from; None where `root` is no such worktree.

    Git's files are read here because git itself refuses to answer another user, as in a container (safe.directory).
    """
    try:
        git = root / (root / ".git").read_text().removeprefix("gitdir:").strip()
        main = (git / (git / "commondir").read_text().strip()).resolve().parent
    except (OSError, ValueError):  # .git is a folder, a submodule's file, missing, or no text
        return None
    return main if main != root and (main / "dvc.yaml").is_file() else None


def find(path: Path, root: Path) -> Path | None:
    """`path` in `root`, or in the nearest of the checkouts that it was made from; None where none has it.

    The path is returned as it is, not resolved, where `root` itself has it.
    """
    if (root / path).exists():
        return path
    return next((each / path for each in checkouts(root)[1:] if (each / path).exists()), None)


def owner_of(folder: Path, root: Path) -> Path:
    """The checkout whose `folder` is used in `root`: the main checkout, or `root` where that has content of its own.

    A link to the main checkout's folder is compared by name: other processes may just be making that folder.
    """
    main, here = checkouts(root)[-1], root / folder
    is_free = not here.exists() or (here.is_dir() and not here.is_symlink() and not contains_files(here))
    is_linked = here.is_symlink() and here.readlink() == main / folder
    return main if is_free or is_linked or here.resolve() == (main / folder).resolve() else root.resolve()


def share(folder: Path, root: Path) -> None:
    """Make `folder` in `root` a link to the main checkout's, which is made if it is missing.

    A folder that contains something stays what it is. Raises FilmstillError where the link cannot be made.
    """
    owner, here = owner_of(folder, root), root / folder
    if owner == root.resolve():
        return
    there = (owner / folder).resolve()  # it may be a link to a folder that was removed
    try:
        try:
            there.mkdir()
        except FileExistsError:
            if there.is_file():  # any other is a folder, also where another process is just making it a link
                raise
        make_link(here, owner / folder)
    except OSError as error:
        raise writing_failed(here, error) from error


def find_provided(path: Path, root: Path) -> Path | None:
    """`find` for a file that `provide` may link: one outside of the repository is not linked into another folder."""
    leads_out = not path.is_absolute() and os.path.normpath(path).split(os.sep)[0] == os.pardir
    return find(path, root) if not leads_out or (root / path).exists() else None


def provide(path: Path, root: Path) -> bool:
    """Link a file or folder that `root` lacks to that of a checkout that `root` was made from.

    Returns whether `root` has it now. Raises FilmstillError where the link cannot be made.
    """
    if (found := find_provided(path, root)) is None:
        return False
    if found != path:
        try:
            make_link(root / path, found)
        except OSError as error:
            raise writing_failed(root / path, error) from error
    return True


def make_link(here: Path, there: Path) -> None:
    """Make `here` a link to `there` by a rename: experiments that start together may all make it.

    Replaces a link that leads elsewhere or nowhere, and an empty folder.
    """
    if here.is_symlink() and here.exists() and here.resolve() == there.resolve():
        return
    here.parent.mkdir(parents=True, exist_ok=True)
    temporary = here.with_name(f".{os.urandom(8).hex()}.tmp")
    temporary.symlink_to(there)
    try:
        while True:
            if here.is_dir() and not here.is_symlink():
                with suppress(FileNotFoundError, NotADirectoryError):  # another process has replaced it
                    here.rmdir()
            with suppress(IsADirectoryError):  # another process has made the empty folder again
                temporary.replace(here)
                return
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def contains_files(folder: Path) -> bool:
    """Whether a folder contains anything. Another process may just be putting a link in its place."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return any(folder.iterdir())
    return False
