"""Find the files that the user provides, released weights and prompts, before DVC looks for them.

Git and DVC do not bring them along: in a git worktree, and in the folder of an experiment (`dvc exp run --temp`,
`--queue`), this stage links them to those of the checkout that it was made from. Its only output is a mark,
which is the same everywhere.
"""

from pathlib import Path

from filmstill.errors import FilmstillError
from filmstill.params.load import Values
from filmstill.params.prompts import Prompts
from filmstill.params.teacher import Teacher
from filmstill.prompts.text_file import check_files
from filmstill.runtime.exit import exit_code, run_script
from filmstill.runtime.files import write_text
from filmstill.work.checkouts import provide
from filmstill.work.graph import repository

MARK = Path("data/provided.txt")  # git ignores it, so that it is missing wherever the files may be missing
TEXT = "Released weights and prompts that params.yaml names are here, or are links to the main checkout's.\n"


def main() -> None:
    """Link what is missing. Raises FilmstillError for a file that no checkout has."""
    values, root = Values.read(), repository()
    teacher, prompts = values.section(Teacher, "teacher"), values.section(Prompts, "prompts")
    for key, path in {
        "teacher.released": teacher.released,
        "teacher.real_score": teacher.real_score,
        "prompts.raw": prompts.raw,
        "prompts.extension": prompts.extension,
        "prompts.unsafe_words": prompts.unsafe_words,
    }.items():
        if not (_is_tracked(Path(path)) or provide(Path(path), root)):
            raise FilmstillError(
                f"{key}: is {path!r}, allowed: a file or folder that exists; `python -m filmstill check` names the "
                "command that downloads it"
            )
    check_files(prompts)  # before DVC hashes them for the next stage
    write_text(MARK, TEXT)


def _is_tracked(path: Path) -> bool:
    """Whether `dvc add` or `dvc import-url` made DVC responsible for `path`: it comes from DVC's cache."""
    return any(Path(f"{each}.dvc").is_file() for each in (path, *path.parents))


if __name__ == "__main__":
    run_script(lambda: exit_code(main))
