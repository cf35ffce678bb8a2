"""Where an experiment's folder and a git worktree find what git ignores."""

import os
import subprocess
from pathlib import Path

import pytest

from filmstill.errors import FilmstillError
from filmstill.work.checkouts import DVC_ROOT, checkouts, experiment_of, find, provide, share
from repository import commit


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit."""
    monkeypatch.delenv(DVC_ROOT, raising=False)
    folder = tmp_path / "main"
    folder.mkdir()
    (folder / "dvc.yaml").write_text("stages: {}\n")
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    commit(folder, "start")
    return folder


def worktree(of: Path, name: str = "other") -> Path:
    folder = of.parent / name
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(folder)], cwd=of, check=True)
    return folder


def experiment(of: Path, name: str = "tmp1") -> Path:
    """A folder as DVC makes it for an experiment: a repository of its own."""
    folder = of / ".dvc/tmp/exps" / name
    folder.mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    (folder / "dvc.yaml").write_text("stages: {}\n")
    return folder


@pytest.mark.parametrize("name", ["tmp1", "standalone/tmp1"])  # of the queue; of `dvc exp run --temp`
def test_an_experiment_belongs_to_the_repository_around_its_folder(main: Path, name: str):
    folder = experiment(main, name)
    assert experiment_of(folder) == main and checkouts(folder) == [folder, main]
    assert experiment_of(main) is None and checkouts(main) == [main]


def test_a_worktree_belongs_to_the_main_checkout_and_so_does_its_experiment(main: Path):
    other = worktree(main)
    folder = experiment(other)
    assert checkouts(other) == [other, main] and checkouts(folder) == [folder, other, main]
    assert experiment_of(other) is None and experiment_of(folder) == other


def test_dvc_names_the_repository_where_a_link_puts_its_folders_elsewhere(
    main: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "scratch/exps/tmp1").mkdir(parents=True)
    (main / ".dvc").mkdir()
    (main / ".dvc/tmp").symlink_to(tmp_path / "scratch")
    folder = (main / ".dvc/tmp/exps/tmp1").resolve()
    assert experiment_of(folder) is None
    monkeypatch.setenv(DVC_ROOT, str(main))
    assert experiment_of(folder) == main


def test_the_variable_of_another_repositorys_stage_is_not_believed(
    main: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(DVC_ROOT, str(main))
    clone = tmp_path / "clone"
    clone.mkdir()
    assert checkouts(clone) == [clone] and checkouts(main) == [main]


def test_a_submodule_and_a_worktree_of_a_bare_repository_are_on_their_own(main: Path, tmp_path: Path):
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(main), str(bare)], check=True)
    other = worktree(bare, "of-bare")
    assert checkouts(other) == [other]
    submodule = tmp_path / "submodule"
    (tmp_path / "modules").mkdir()
    submodule.mkdir()
    (submodule / ".git").write_text("gitdir: ../modules\n")
    assert checkouts(submodule) == [submodule]


def test_the_nearest_checkout_that_has_a_file_gives_it(main: Path):
    other = worktree(main)
    folder = experiment(other)
    assert find(Path("cluster.yaml"), folder) is None
    for each, expected in ((main, main / "cluster.yaml"), (other, other / "cluster.yaml"), (folder, "cluster.yaml")):
        (each / "cluster.yaml").write_text("")
        assert find(Path("cluster.yaml"), folder) == Path(expected)
    assert find(main / "cluster.yaml", folder) == main / "cluster.yaml"


def test_work_is_shared_with_the_main_checkout(main: Path):
    folders = [worktree(main), experiment(main)]
    for folder in folders:
        share(Path(".work"), folder)
        (folder / ".work" / folder.name).touch()
        share(Path(".work"), folder)
    share(Path(".work"), main)
    assert sorted(os.listdir(main / ".work")) == sorted(folder.name for folder in folders)


def test_an_empty_folder_and_a_link_that_leads_nowhere_become_the_link(main: Path):
    other, folder = worktree(main), experiment(main)
    (other / ".work").mkdir()
    (folder / ".work").symlink_to(main / "removed")
    for each in (other, folder):
        share(Path(".work"), each)
        assert (each / ".work").resolve() == main / ".work"


def test_work_of_its_own_is_kept_apart(main: Path):
    other = worktree(main)
    (other / ".work/distill").mkdir(parents=True)
    share(Path(".work"), other)
    assert not (other / ".work").is_symlink() and not (main / ".work").exists()


def test_a_main_checkout_that_cannot_be_written_is_one_line(main: Path):
    folder = experiment(main)
    (main / ".work").write_text("not a folder")
    with pytest.raises(FilmstillError, match=r"/\.work: cannot be written \(File exists\); make the folder writable"):
        share(Path(".work"), folder)


def test_weights_are_linked_not_copied(main: Path):
    folder, weights = experiment(main), Path("data/released/wan/weights")
    assert not provide(weights.parent, folder)
    (main / weights).parent.mkdir(parents=True)
    (main / weights).write_text("weights")
    for _ in range(2):
        assert provide(weights.parent, folder)
    assert (folder / weights).read_text() == "weights" and (folder / weights.parent).is_symlink()
    assert provide(weights.parent, main) and not (main / weights.parent).is_symlink()


def test_a_path_that_leads_out_of_the_repository_is_not_linked_beside_another_checkout(main: Path, tmp_path: Path):
    folder, outside = experiment(main), Path("data/../../prompts.txt")
    (tmp_path / "prompts.txt").write_text("prompts")
    (main / "data").mkdir()
    assert provide(outside, main)
    assert not provide(outside, folder) and not provide(Path("../prompts.txt"), folder)
    assert sorted(os.listdir(folder.parent)) == [folder.name]
    assert provide(tmp_path / "prompts.txt", folder)
