"""What `check` finds missing before a run."""

from pathlib import Path

import pytest

from filmstill.errors import FilmstillError
from filmstill.work.required_files import check_git


def test_sources_in_no_git_repository_are_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FilmstillError) as refused:
        check_git()
    assert str(refused.value) == (
        f"{tmp_path}: is in no git repository, which DVC needs; `git init && git add -A && git commit -m start`, then "
        "`dvc repro`"
    )
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    check_git()  # DVC does without, as its user wants
    (tmp_path / ".dvc/config").write_text("[core]\n    autostage = true\n")
    (tmp_path / ".git").write_text("gitdir: elsewhere\n")  # of a worktree
    check_git()
