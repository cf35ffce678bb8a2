"""`prune` removes what no branch, experiment or checkout needs, oldest first, and keeps what is in use."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from filmstill.errors import FilmstillError
from filmstill.params.load import Values
from filmstill.work.folder import WORK
from filmstill.work.graph import PRETRAIN, Inputs, inputs, read_params
from filmstill.work.prune import QUEUED, prune
from repository import ROOT, commit, environment

GRAPH = {"teacher": {"cmd": "x", "deps": ["teacher.py"], "params": ["teacher"], "outs": ["data/teacher.bin"]}}
HOLD = """
import sys
from pathlib import Path
from filmstill.work.folder import locked
with locked(Path(sys.argv[1]) / "lock", "waiting"):
    print("held", flush=True)
    sys.stdin.read()
"""
SIZE = 400_000  # bytes of every work folder: 0.4 MB


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("teacher.py").write_text("")
    Path("params.yaml").write_text("teacher: {steps: 1}\n")
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": GRAPH}))
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "main"], check=True)


def work_folder(key: str, age: int, lock: bool = False) -> Path:
    """A folder of the teacher's, last changed `age` hours ago."""
    folder = WORK / "teacher" / key
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"0" * SIZE)
    if lock:
        (folder / "lock").touch()
    os.utime(folder, (1e9 - 3600 * age,) * 2)
    return folder


def write_lock(teacher: str) -> str:
    """Write a dvc.lock that records this parameter of the teacher; returns the key of its work folder."""
    entry = {"deps": [], "params": {"params.yaml": {"teacher": teacher}}}
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": {"teacher": entry}}))
    return Inputs.of_lock(entry).key


def kept() -> set[str]:
    return {folder.name for folder in (WORK / "teacher").iterdir()}


def test_unused_folders_go_oldest_first_and_the_working_trees_stays(capsys: pytest.CaptureFixture[str]):
    current = work_folder(inputs("teacher", Values.read()).key, age=9)
    for key, age in (("bbb", 2), ("ccc", 3), ("aaa", 1)):
        work_folder(key, age, lock=True)  # of a process that has ended
    prune(dry_run=False, live=set())
    assert capsys.readouterr().out.splitlines() == [
        "removed .work/teacher/ccc (0.4 MB)",
        "removed .work/teacher/bbb (0.4 MB)",
        "removed .work/teacher/aaa (0.4 MB)",
        "0.4 MB in .work are left",
    ]
    assert kept() == {current.name}


def test_a_dry_run_prints_the_same_and_removes_nothing(capsys: pytest.CaptureFixture[str]):
    for key, age in (("aaa", 1), ("bbb", 2)):
        work_folder(key, age)
    prune(dry_run=True, live={("teacher", "aaa")})
    assert capsys.readouterr().out.splitlines() == [
        "would remove .work/teacher/bbb (0.4 MB)",
        "in use, kept: .work/teacher/aaa",
        "0.4 MB in .work would be left",
    ]
    assert kept() == {"aaa", "bbb"}


def test_a_folder_stays_while_a_process_holds_its_lock(capsys: pytest.CaptureFixture[str]):
    folder = work_folder("aaa", age=1)
    words = [sys.executable, "-c", HOLD, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, env=environment(ROOT), **pipes) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            prune(dry_run=False, live=set())
            assert capsys.readouterr().out == "in use, kept: .work/teacher/aaa\n0.4 MB in .work are left\n"
            assert (folder / "weights").stat().st_size == SIZE
        finally:
            holder.kill()
    prune(dry_run=False, live=set())
    assert capsys.readouterr().out == "removed .work/teacher/aaa (0.4 MB)\n0.0 MB in .work are left\n"
    assert kept() == set()


def test_a_live_jobs_folder_stays_and_one_of_another_stage_does_not(capsys: pytest.CaptureFixture[str]):
    """A job on another node holds no lock that this machine sees."""
    work_folder("aaa", age=1)
    other = WORK / "distill" / "aaa"
    shutil.copytree(WORK / "teacher/aaa", other)
    prune(dry_run=False, live={("teacher", "aaa")})
    shown = capsys.readouterr().out.splitlines()
    assert "in use, kept: .work/teacher/aaa" in shown and "removed .work/distill/aaa (0.4 MB)" in shown
    assert kept() == {"aaa"} and not other.exists()


def test_what_another_branchs_dvc_lock_names_stays(capsys: pytest.CaptureFixture[str]):
    of_branch = work_folder(write_lock("other"), age=2)
    commit(Path.cwd(), "other")
    subprocess.run(["git", "branch", "other"], check=True)
    write_lock("main")
    commit(Path.cwd(), "main")
    of_tree = work_folder(write_lock("uncommitted"), age=1)
    work_folder("aaa", age=3)
    prune(dry_run=False, live=set())
    assert capsys.readouterr().out == "removed .work/teacher/aaa (0.4 MB)\n0.8 MB in .work are left\n"
    assert kept() == {of_branch.name, of_tree.name}


@pytest.mark.parametrize("torn", ["stages: [", "stages: {teacher: 3}", "schema: '2.0'", ""])
def test_nothing_goes_while_a_dvc_lock_cannot_be_read(torn: str):
    work_folder("aaa", age=1)
    Path("dvc.lock").write_text(torn)
    line = r"dvc\.lock of the working tree: not the lock file that DVC writes \(\w+: .+\); nothing is pruned$"
    with pytest.raises(FilmstillError, match=line):
        prune(dry_run=False, live=set())
    assert kept() == {"aaa"}


def change_parameter(steps: int, folder: Path) -> str:
    """Write another parameter to the params.yaml of a checkout; returns the key of its teacher."""
    (folder / "params.yaml").write_text(f"teacher: {{steps: {steps}}}\n")
    with contextlib.chdir(folder):
        return inputs("teacher", Values.read()).key


def test_what_other_checkouts_need_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A worktree, even one called pretrain, and folders of experiments: no branch or dvc.lock has their keys yet."""
    commit(Path.cwd(), "start")
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", "../pretrain"], check=True)
    folders = [Path("../pretrain").resolve(), Path(".dvc/tmp/exps/tmp1"), Path(".dvc/tmp/exps/standalone/tmp2")]
    for folder in folders[1:]:
        shutil.copytree(folders[0], folder, ignore=shutil.ignore_patterns(".git"))
    needed = {work_folder(change_parameter(steps, folder), age=1).name for steps, folder in enumerate(folders, 7)}
    work_folder("aaa", age=2)
    prune(dry_run=False, live=set())
    assert capsys.readouterr().out == "removed .work/teacher/aaa (0.4 MB)\n1.2 MB in .work are left\n"
    assert kept() == needed
    (folders[0] / ".work").symlink_to(WORK.resolve())
    with contextlib.chdir(folders[0]):
        prune(dry_run=False, live=set())
    assert kept() == needed


@pytest.mark.parametrize("ref", QUEUED)
def test_what_queued_experiments_need_stays(ref: str):
    commit(Path.cwd(), "start")
    needed = set()
    for steps in (7, 8):  # DVC keeps the queue in a reflog: only its last entry is a ref
        needed.add(work_folder(change_parameter(steps, Path.cwd()), age=1).name)
        made = subprocess.run(["git", "stash", "create"], capture_output=True, text=True, check=True).stdout.strip()
        subprocess.run(["git", "update-ref", "--create-reflog", "-m", "queued", ref, made], check=True)
    subprocess.run(["git", "checkout", "--quiet", "."], check=True)
    work_folder("aaa", age=2)
    prune(dry_run=False, live=set())
    assert kept() == needed


def write_pretraining(folder: Path, steps: int) -> Path:
    """The graph and parameters of a pretraining; returns its work folder."""
    stage = {"wdir": "..", "cmd": "x", "deps": ["teacher.py"], "params": [{"pretrain/params.yaml": ["teacher"]}]}
    (folder / PRETRAIN).mkdir(exist_ok=True)
    (folder / PRETRAIN / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"teacher": stage}}))
    (folder / PRETRAIN / "params.yaml").write_text(f"teacher: {{steps: {steps}}}\n")
    with contextlib.chdir(folder):
        key = inputs("teacher", read_params(PRETRAIN), PRETRAIN).key
    made = WORK / "pretrain" / key
    made.mkdir(parents=True)
    return made


def test_what_the_pretraining_of_a_checkout_or_a_branch_needs_stays():
    """An experiment's folder holds a pretrain/, too: it is no checkout."""
    commit(Path.cwd(), "start")
    recorded = write_pretraining(Path.cwd(), steps=5)
    lock = {"deps": [{"path": "teacher.py", "md5": "0"}], "params": {"pretrain/params.yaml": {"teacher": 1}}}
    (PRETRAIN / "dvc.lock").write_text(yaml.safe_dump({"stages": {"teacher": lock}}))
    of_lock = WORK / "pretrain" / Inputs.of_lock(lock).key
    commit(Path.cwd(), "trained")
    (PRETRAIN / "dvc.lock").unlink()  # only the branch has it now
    experiment = Path(".dvc/tmp/exps/tmp1")
    shutil.copytree(".", experiment, ignore=shutil.ignore_patterns(".git", ".work", ".dvc"))
    of_experiment = write_pretraining(experiment, steps=6)
    others = [WORK / "pretrain/aaa", WORK / "teacher" / recorded.name]
    for folder in (of_lock, *others):
        folder.mkdir(parents=True)
    prune(dry_run=False, live=set())
    assert [folder.exists() for folder in (recorded, of_lock, of_experiment, *others)] == [True] * 3 + [False] * 2


PROVIDED = {"cmd": "x", "params": ["student.raw"], "outs": ["data/provided.txt"]}  # a value, as DVC writes it
STUDENT = {
    "cmd": "x",
    "deps": ["student.py", "data/provided.txt", "data/teacher.bin", "weights.bin"],
    "params": ["student"],
    "outs": ["data/student.bin"],
}


def write_graph(teacher: int, student: int, gate: int) -> None:
    """Two stages, their sources and parameters; git ignores the weights."""
    Path("student.py").write_text("")
    Path("weights.bin").write_text("weights")
    Path(".gitignore").write_text("weights.bin\n.work\n")
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {**GRAPH, "student": STUDENT, "provided": PROVIDED}}))
    values = {"teacher": {"steps": teacher}, "student": {"steps": student, "gate": gate, "raw": "prompts"}}
    Path("params.yaml").write_text(yaml.safe_dump(values))


def record_teacher(md5: str) -> None:
    """Write the dvc.lock in which the current teacher has made a file with this hash."""
    made = inputs("teacher", Values.read())
    deps = [{"path": path, "md5": md5} for path, md5 in made.deps.items()]
    outs = [{"path": "data/teacher.bin", "md5": md5}]
    entry = {"deps": deps, "params": {"params.yaml": made.params}, "outs": outs}
    provided = {
        "params": {"params.yaml": {"student.raw": "prompts"}},
        "outs": [{"path": "data/provided.txt", "md5": "0"}],
    }
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": {"provided": provided, "teacher": entry}}))


def student_folder(changed: dict[str, str], params: dict[str, object] | None = None) -> Path:
    """A work folder of the student as the stage makes it with these hashes changed."""
    found = inputs("student", Values.read())
    found = Inputs(found.deps | changed, found.params if params is None else {"student": params})
    folder = WORK / "student" / found.key
    folder.mkdir(parents=True)
    found.write(folder)
    return folder


@pytest.mark.parametrize("ref", QUEUED)
def test_what_an_experiment_made_downstream_of_its_change_stays(ref: str):
    """The queued commit's dvc.lock has the hash of what the teacher made before the change."""
    write_graph(teacher=1, student=1, gate=1)
    record_teacher("before")
    commit(Path.cwd(), "start")
    current = student_folder({})
    write_graph(teacher=3, student=1, gate=9)  # what `dvc exp run --queue` commits
    made = subprocess.run(["git", "stash", "create"], capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run(["git", "update-ref", "--create-reflog", "-m", "queued", ref, made], check=True)
    kept = [student_folder({"data/teacher.bin": "after"}), work_folder(inputs("teacher", Values.read()).key, age=1)]
    subprocess.run(["git", "checkout", "--quiet", "."], check=True)
    others = [
        student_folder({"data/teacher.bin": "after", "student.py": "edited"}),
        student_folder({"data/teacher.bin": "after"}, {"steps": 2, "gate": 1, "raw": "prompts"}),
        student_folder({"data/teacher.bin": "after", "data/provided.txt": "1"}),
        student_folder({"data/teacher.bin": "after", "more.py": "0"}),
    ]
    prune(dry_run=False, live=set())
    assert [folder.exists() for folder in (current, *kept, *others)] == [True] * 3 + [False] * 4
    subprocess.run(["git", "update-ref", "-d", ref], check=True)  # `dvc queue remove`
    prune(dry_run=False, live=set())
    assert [folder.exists() for folder in (current, *kept)] == [True, False, False]


def test_what_a_checkout_made_before_it_changed_an_upstream_parameter_stays_until_it_has_run():
    write_graph(teacher=1, student=1, gate=1)
    record_teacher("one")
    folders = [student_folder({"data/teacher.bin": md5}) for md5 in ("one", "two")]
    write_graph(teacher=2, student=1, gate=1)  # perhaps this teacher made "two" before
    prune(dry_run=False, live=set())
    assert all(folder.exists() for folder in folders)
    record_teacher("two")
    prune(dry_run=False, live=set())
    assert [folder.exists() for folder in folders] == [False, True]


def test_a_queued_experiment_keeps_its_work_where_its_commit_lacks_the_weights():
    write_graph(teacher=1, student=1, gate=1)
    record_teacher("one")
    commit(Path.cwd(), "start")
    write_graph(teacher=1, student=2, gate=1)
    made = subprocess.run(["git", "stash", "create"], capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run(["git", "update-ref", "--create-reflog", "-m", "queued", QUEUED[0], made], check=True)
    folder, other = student_folder({}), student_folder({"data/teacher.bin": "two"})
    subprocess.run(["git", "checkout", "--quiet", "."], check=True)
    prune(dry_run=False, live=set())
    assert folder.exists() and not other.exists()
