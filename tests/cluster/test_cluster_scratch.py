"""Which folders other hosts can see, and `.work` as a link into the scratch. Needs no SLURM."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from filmstill.cluster import scratch
from filmstill.cluster.config import Cluster
from filmstill.cluster.scratch import find_work, refuse_unshared, use_work
from filmstill.cluster.slurm import digest, tag
from filmstill.errors import FilmstillError

HERE = {"node1": (socket.gethostname(), "127.0.0.1"), "node2": ("localhost", "127.0.0.1")}
FAR = {**HERE, "node3": ("other.example", "192.0.2.1")}  # an address reserved for documentation


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "repository").mkdir()
    return tmp_path / "repository"


@pytest.fixture
def cluster(tmp_path) -> Cluster:
    (tmp_path / "scratch").mkdir()
    return Cluster(scratch=str(tmp_path / "scratch"))


@pytest.fixture
def mounts(tmp_path, monkeypatch, root, cluster):
    """A function that fakes the types of the file systems of everything else, of the scratch and of the repository."""

    def write(everything: str, of_scratch: str, of_root: str) -> None:
        lines = [f"a / {everything} rw", f"b {cluster.scratch} xfs rw", f"c {cluster.scratch} {of_scratch} rw"]
        (tmp_path / "mounts").write_text("\n".join([*lines, f"d {root} {of_root} rw", ""]))

    monkeypatch.setattr(scratch, "MOUNTS", tmp_path / "mounts")
    monkeypatch.setattr(scratch, "EXPORTS", tmp_path / "exports")
    return write


def is_taken(cluster: Cluster, root: Path, nodes: dict) -> bool:
    try:
        refuse_unshared(cluster, root, nodes)
    except FilmstillError:
        return False
    return True


def test_on_one_host_everything_is_shared(root, cluster, mounts):
    mounts("ext4", "tmpfs", "xfs")
    assert is_taken(cluster, root, HERE)
    assert not is_taken(cluster, root, FAR)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "overlay", "tmpfs"])
def test_a_scratch_of_this_machine_alone_is_refused(root, cluster, mounts, kind):
    mounts("ext4", kind, "nfs4")
    with pytest.raises(
        FilmstillError, match=rf"scratch: is '\S+/scratch', on {kind} of this machine.* including node3"
    ):
        refuse_unshared(cluster, root, FAR)


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "fuse.juicefs"])
def test_a_file_system_of_several_hosts_is_taken(root, cluster, mounts, kind):
    mounts("ext4", kind, kind)
    assert is_taken(cluster, root, FAR)


def test_a_repository_of_this_machine_alone_is_refused(root, cluster, mounts):
    mounts("nfs4", "lustre", "ext4")
    with pytest.raises(FilmstillError, match=r"the repository: is '\S+/repository', on ext4 of this machine alone"):
        refuse_unshared(cluster, root, FAR)


def test_a_folder_that_this_machine_serves_to_the_others_is_taken(root, cluster, mounts, tmp_path):
    mounts("ext4", "ext4", "ext4")
    assert not is_taken(cluster, root, FAR)
    (tmp_path / "exports").write_text(f"# comment\n{tmp_path} *(rw)\n")
    assert is_taken(cluster, root, FAR)


@pytest.mark.parametrize(("folder", "why"), [("/nowhere/at/all", "No such file"), ("/proc", "No such file")])
def test_a_scratch_that_cannot_be_written_is_refused(root, folder, why):
    with pytest.raises(FilmstillError, match=rf"cluster\.yaml: scratch: is '{folder}', allowed: .*\({why}"):
        refuse_unshared(Cluster(scratch=folder), root, HERE)
    (root / ".work/distill").mkdir(parents=True)  # `use_work` must not advise to move it there
    with pytest.raises(FilmstillError, match=rf"cluster\.yaml: scratch: is '{folder}', allowed: .*\({why}"):
        use_work(Cluster(scratch=folder), root)


def test_work_becomes_a_link_into_the_scratch_once(root, cluster):
    target = Path(cluster.scratch or "") / f"repository-{digest(root)[:4]}"
    use_work(cluster, root)
    assert os.readlink(root / ".work") == str(target)
    (root / ".work/file").write_text("work")
    use_work(cluster, root)
    assert (target / "file").read_text() == "work"


def test_two_clones_have_folders_of_their_own(tmp_path, cluster):
    clones = [tmp_path / name / "repository" for name in ("a", "b")]
    for clone in clones:
        clone.mkdir(parents=True)
        use_work(cluster, clone)
    assert len(os.listdir(cluster.scratch or "")) == 2


def test_an_empty_work_folder_becomes_the_link(root, cluster):
    (root / ".work").mkdir()
    use_work(cluster, root)
    assert (root / ".work").is_symlink()


def test_a_scratch_that_was_wiped_is_used_again(root, cluster):
    use_work(cluster, root)
    (root / ".work").resolve().rmdir()
    use_work(cluster, root)
    assert (root / ".work").is_dir()


def test_work_is_never_hidden_and_the_line_says_how_to_move_it(root, cluster):
    (root / ".work/distill").mkdir(parents=True)
    (root / ".work/distill/file").write_text("work")
    with pytest.raises(FilmstillError, match=r"\.work: contains work of this machine, .*; move it: (mv .*)") as refusal:
        use_work(cluster, root)
    command = str(refusal.value).partition("move it: ")[2]
    subprocess.run(command, shell=True, check=True, cwd=root)
    use_work(cluster, root)
    assert (root / ".work").is_symlink() and (root / ".work/distill/file").read_text() == "work"


def test_a_link_that_leads_elsewhere_is_refused(root, cluster, tmp_path):
    (tmp_path / "other").mkdir()
    (root / ".work").symlink_to(tmp_path / "other")
    with pytest.raises(FilmstillError, match=r"\.work: is a link to \S+/other, but cluster\.yaml: scratch is"):
        use_work(cluster, root)
    assert os.readlink(root / ".work") == str(tmp_path / "other")


def test_without_a_scratch_nothing_happens(root):
    use_work(Cluster(), root)
    assert os.listdir(root) == []


@pytest.mark.parametrize("scratch", [True, False])
def test_an_experiment_works_where_its_repository_does_and_finds_its_jobs(root, cluster, scratch):
    experiment = root / ".dvc/tmp/exps/tmp1"
    experiment.mkdir(parents=True)
    cluster = cluster if scratch else Cluster()
    before = tag(root)
    use_work(cluster, experiment)
    assert (experiment / ".work").resolve() == (root / ".work").resolve()
    assert (experiment / ".cache").resolve() == root / ".cache"
    assert (root / ".work").is_symlink() == scratch
    assert tag(experiment) == tag(root) and (tag(root) == before) != scratch
    use_work(cluster, root)
    use_work(cluster, experiment)


def test_a_checkout_with_work_of_its_own_has_its_own_jobs_and_scratch(root, cluster):
    experiment = root / ".dvc/tmp/exps/tmp1"
    (experiment / ".work/distill").mkdir(parents=True)
    find_work(experiment)
    assert tag(experiment) != tag(root)
    with pytest.raises(FilmstillError, match=r"\.work: contains work of this machine"):
        use_work(cluster, experiment)


@pytest.mark.parametrize("is_made", [False, True])
def test_experiments_that_start_together_all_work_on_the_scratch(tmp_path, cluster, monkeypatch, is_made):
    """None of them sees the work of another as work of this machine. is_made: `.work` is an empty folder before."""
    count, interval = 6, sys.getswitchinterval()
    start = Barrier(count)

    def use(experiment: Path) -> None:
        start.wait()
        if experiment.name == "tmp0":  # as `filmstill cancel` would, at the same time
            find_work(experiment)
        else:
            use_work(cluster, experiment)
            (experiment / ".work" / experiment.name).touch()

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(count) as threads:
            for number in range(40):
                main = tmp_path / f"main{number}"
                experiments = [main / f".dvc/tmp/exps/tmp{each}" for each in range(count)]
                for experiment in experiments:
                    experiment.mkdir(parents=True)
                if is_made:
                    (main / ".work").mkdir()
                list(threads.map(use, experiments))
                assert len(os.listdir((main / ".work").readlink())) == count - 1
    finally:
        sys.setswitchinterval(interval)
