"""cluster.yaml: the values that are read, and those that are refused in one line. Needs no SLURM."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from filmstill.cluster.config import (
    CLUSTER,
    LOCAL,
    SLURM,
    STAGES,
    VARIABLE,
    Cluster,
    Resources,
    cluster_name,
    read_cluster,
)
from filmstill.errors import FilmstillError
from filmstill.params.load import read_plain

EXAMPLE = Path(__file__).parents[2] / "cluster.example.yaml"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def experiment(folder: Path, monkeypatch) -> Path:
    """The folder of an experiment of this repository, in which the test runs."""
    experiment = folder / ".dvc/tmp/exps/tmp1"
    experiment.mkdir(parents=True)
    monkeypatch.chdir(experiment)
    return experiment


def read(text: str) -> Cluster:
    CLUSTER.write_text(text + "\n")
    return read_cluster()


def test_without_a_file_everything_is_local():
    assert read_cluster() == Cluster()
    assert read_cluster().executor == LOCAL


def test_an_experiment_runs_where_its_repository_does(folder: Path, experiment: Path):
    (folder / CLUSTER).write_text("executor: slurm\n")
    assert read_cluster().executor == SLURM
    (folder / CLUSTER).write_text("executor: slrm\n")
    with pytest.raises(FilmstillError, match=rf"^{folder}/cluster\.yaml: executor: is 'slrm'"):
        read_cluster()
    (folder / CLUSTER).write_text("executor: slurm\nstages: {teacher: {nodes: 2}}\n")
    with pytest.raises(FilmstillError, match=rf"^{folder}/cluster\.yaml: stages\.teacher\.nodes: is 2"):
        read_cluster()
    (experiment / CLUSTER).write_text("executor: local\n")
    assert read_cluster().executor == LOCAL


@pytest.mark.parametrize("value", ["", "none"])
def test_the_variable_turns_the_file_off(folder: Path, experiment: Path, monkeypatch, value: str):
    (folder / CLUSTER).write_text("executor: slurm\n")
    monkeypatch.setenv(VARIABLE, value)
    assert read_cluster().executor == LOCAL


def test_the_variable_names_another_file(folder: Path, experiment: Path, monkeypatch):
    (folder / CLUSTER).write_text("executor: local\n")
    (folder / "other.yaml").write_text("executor: slurm\n")
    monkeypatch.setenv("HOME", str(folder))
    for value in ("other.yaml", str(folder / "other.yaml"), "~/other.yaml"):
        monkeypatch.setenv(VARIABLE, value)
        assert read_cluster().executor == SLURM and cluster_name() == str(folder / "other.yaml")


@pytest.mark.parametrize("value", ["missing.yaml", "/nowhere/cluster.yaml", "~nosuchuser/x", ".", " ", "None"])
def test_a_variable_that_names_no_file_is_refused(folder: Path, monkeypatch, value: str):
    (folder / CLUSTER).write_text("executor: slurm\n")
    monkeypatch.setenv(VARIABLE, value)
    allowed = "the path of a file that exists, or none to compute here"
    with pytest.raises(FilmstillError, match=rf"^FILMSTILL_CLUSTER: is '{value}', allowed: {allowed}$"):
        read_cluster()
    assert cluster_name() == value  # for a message about something else


def test_a_link_that_leads_nowhere_does_not_mean_to_compute_here(folder: Path):
    CLUSTER.symlink_to(folder / "removed.yaml")
    with pytest.raises(FilmstillError, match=r"^cluster\.yaml: is 'a link that leads nowhere', allowed: "):
        read_cluster()


def test_a_stage_has_its_own_values_over_the_defaults():
    cluster = read(
        "defaults: {partition: h100, cpus_per_task: 4, sbatch: {exclusive: true}}\n"
        "stages: {distill: {nodes: 2, cpus_per_task: 8}}"
    )
    assert cluster.resources("distill") == Resources(
        partition="h100", cpus_per_task=8, nodes=2, sbatch={"exclusive": True}
    )
    assert cluster.resources("ode_init") == Resources(partition="h100", cpus_per_task=4, sbatch={"exclusive": True})


def test_a_stage_is_checked_with_the_defaults_it_rests_on():
    cluster = read("defaults: {signal_seconds: 20}\nstages: {distill: {time: 0:01:00}}")
    assert cluster.resources("distill").seconds == 60
    with pytest.raises(FilmstillError, match=r"cluster\.yaml: stages\.distill\.time: is '0:01:00', allowed: more than"):
        read("defaults: {signal_seconds: 90}\nstages: {distill: {time: 0:01:00}}")


def test_a_shard_is_one_process_whatever_the_training_asks():
    cluster = read("defaults: {nodes: 4, gpus_per_node: 8}")
    assert (cluster.resources("distill").nodes, cluster.resources("distill").tasks) == (4, 8)
    shard = cluster.resources("ode_pairs")
    assert (shard.nodes, shard.tasks, shard.gpus_per_node) == (1, 1, 1)
    teacher = cluster.resources("teacher")
    assert (teacher.nodes, teacher.tasks, teacher.gpus_per_node) == (1, 1, 1)
    assert cluster.resources("ode_init").gpus_per_node == 8 and read("{}").resources("teacher").gpus_per_node == 0


def test_processes_are_one_a_gpu_unless_said_otherwise():
    assert Resources().tasks == 1
    assert Resources(gpus_per_node=8).tasks == 8
    assert Resources(gpus_per_node=8, tasks_per_node=4).tasks == 4
    assert Resources(tasks_per_node=4).tasks == 4


@pytest.mark.parametrize("quote", ["", "'", '"'])
@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("0:30:00", 1800),
        ("1:00:00", 3600),  # the number 3600 to YAML
        ("01:00:00", 3600),
        ("12:30:05", 45005),
        ("2-00:00:00", 172800),
        ("100:00:00", 360000),
    ],
)
@pytest.mark.parametrize("where", ["defaults: {{time: {}}}", "stages:\n  distill:\n    time: {}  # long"])
def test_a_time_is_read_as_it_is_written(where: str, time: str, seconds: int, quote: str):
    resources = read(where.format(f"{quote}{time}{quote}")).resources("distill")
    assert (resources.time, resources.seconds) == (time, seconds)


def test_a_time_of_a_yaml_anchor_is_read_as_it_is_written():
    cluster = read("stages: {ode_init: &own {time: 3:00:00, nodes: 2}, distill: *own}")
    assert cluster.resources("distill") == cluster.resources("ode_init") == Resources(time="3:00:00", nodes=2)


KEYS = f"(allowed keys: {', '.join(field.name for field in fields(Resources))})"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("executor: slrum", "executor: is 'slrum', allowed: one of local, slurm"),
        ("executr: slurm", "executr: no such key (allowed keys: executor, scratch"),
        ("scratch: scratch/me", "scratch: is 'scratch/me', allowed: null or a folder's absolute path"),
        ("scratch: ${oc.env:NOT_SET_ANYWHERE}", "scratch: KeyError raised while resolving interpolation"),
        ('scratch: "/a\\0b"', "scratch: is '/a\\x00b', allowed: null or a folder's absolute path"),
        ("max_requeues: -1", "max_requeues: is -1, allowed: an integer in [0, 1000000]"),
        ("max_requeues: many", "max_requeues: is 'many', allowed: an integer"),
        ("poll_seconds: 0", "poll_seconds: is 0.0, allowed: a number in (0, 86400]"),
        ("poll_seconds: .nan", "poll_seconds: is nan, allowed: a finite number"),
        ("defaults: 3", "defaults: is 3, allowed: a mapping of partition"),
        ("defaults: {nodez: 1}", f"defaults.nodez: no such key {KEYS}"),
        ("defaults: {nodes: 0}", "defaults.nodes: is 0, allowed: an integer in [1, 100000]"),
        ("defaults: {sbatch: [exclusive]}", "defaults.sbatch: is ['exclusive'], allowed: a mapping"),
        ("stages: [distill]", "stages: is ['distill'], allowed: a mapping"),
        ("stages: {distil: {}}", "stages: is 'distil', allowed: teacher, ode_pairs, ode_init, distill, samples"),
        ("stages: {distill: 3}", "stages.distill: is 3, allowed: a mapping of partition"),
        ("stages: {ode_pairs: {nodes: 2}}", "stages.ode_pairs.nodes: is 2, allowed: 1: a shard has one rank"),
        (
            "stages: {teacher: {gpus_per_node: 8}}",
            "stages.teacher.gpus_per_node: is 8, allowed: 0 or 1: it has one rank",
        ),
        ("executor: [", "not readable as YAML"),
    ],
)
def test_a_wrong_file_is_one_line(text: str, says: str):
    assert refusal(text).startswith(f"cluster.yaml: {says}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nodez: 1", "nodez: no such key"),
        ("nodes: two", "nodes: is 'two', allowed: an integer"),
        ("nodes: null", "nodes: is None, allowed: an integer"),
        ("gpus_per_node: -1", "gpus_per_node: is -1, allowed: an integer in [0, 1024]"),
        ("tasks_per_node: 0", "tasks_per_node: is 0, allowed: null or an integer in [1, 1024]"),
        ("{gpus_per_node: 2, tasks_per_node: 3}", "tasks_per_node: is 3, allowed: at most gpus_per_node (2)"),
        ("cpus_per_task: 0", "cpus_per_task: is 0, allowed: an integer in [1, 4096]"),
        ("memory_gb: 1.5", "memory_gb: is 1.5, allowed: null or an integer"),
        ("partition: ''", "partition: is '', allowed: null or some text"),
        ("python: ' '", "python: is ' ', allowed: null or some text"),
        ('partition: "a\\0b"', "partition: is 'a\\x00b', allowed: null or some text, on one line"),
        ('account: "a\\nb"', "account: is 'a\\nb', allowed: null or some text, on one line"),
        ("time: 90", "time: is '90', allowed: [days-]hours:minutes:seconds, such as 1-00:00:00"),
        ("time: 1:30", "time: is '1:30', allowed: [days-]hours:minutes:seconds"),
        ("time: tomorrow", "time: is 'tomorrow', allowed: [days-]hours:minutes:seconds"),
        ("time: 0:02:00", "time: is '0:02:00', allowed: more than signal_seconds (120 s)"),
        ("signal_seconds: 0", "signal_seconds: is 0, allowed: an integer in [1, 1000000]"),
        ("sharding: half", "sharding: is 'half', allowed: one of none, hybrid, full"),
        ("offload: maybe", "offload: is 'maybe', allowed: true or false"),
        ("setup: module load cuda", "setup: is 'module load cuda', allowed: a list of text"),
        ("sbatch: [exclusive]", "sbatch: is ['exclusive'], allowed: a mapping"),
        ("sbatch: {job-name: mine}", "sbatch: is 'job-name', allowed: flags of sbatch that no other key sets"),
        ("sbatch: {mem_per_cpu: 4G}", "sbatch: is 'mem_per_cpu', allowed: flags of sbatch"),
        ("sbatch: {exclusive: false}", "sbatch.exclusive: is False, allowed: text, a number, or true"),
        ('sbatch: {nice: "1\\n2"}', "sbatch.nice: is '1\\n2', allowed: text, a number, or true for a flag without a v"),
        ('setup: ["a\\0b"]', "setup: is 'a\\x00b', allowed: shell commands, without null characters"),
        ("sbatch: {nice: [1]}", "sbatch.nice: is [1], allowed: text, a number, or true"),
    ],
)
@pytest.mark.parametrize("where", ["defaults", "stages.distill"])
def test_a_wrong_key_is_one_line_wherever_it_stands(where: str, text: str, says: str):
    inner = text if text.startswith("{") else f"{{{text}}}"
    text = f"defaults: {inner}" if where == "defaults" else f"stages: {{distill: {inner}}}"
    assert refusal(text).startswith(f"cluster.yaml: {where}.{says}")


def refusal(text: str) -> str:
    with pytest.raises(FilmstillError) as error:
        read(text)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_example_has_every_key_with_its_default(monkeypatch):
    values = read_plain(EXAMPLE)
    assert list(values) == [field.name for field in fields(Cluster)]
    assert list(values["defaults"]) == [field.name for field in fields(Resources)]
    monkeypatch.setenv(VARIABLE, str(EXAMPLE))
    assert read_cluster() == Cluster(executor=SLURM)


def test_every_key_of_the_example_is_explained():
    keys = re.findall(r"^ *([a-z_]+):[^#\n]*(#.*)?$", EXAMPLE.read_text(), re.MULTILINE)
    assert [key for key, comment in keys if not comment] == ["defaults", "stages"]  # the line above explains them


def test_the_examples_for_wan_are_valid():
    examples = re.findall(r"^# --- (\S+):.*\n((?:# .*\n)+)", EXAMPLE.read_text(), re.MULTILINE)
    assert [name for name, _ in examples] == ["wan-1.3b", "wan-14b-teacher"]
    gpus = {}
    for name, text in examples:
        cluster = read(re.sub("^# ", "", text, flags=re.MULTILINE))
        for stage in STAGES:
            resources = cluster.resources(stage)
            gpus[name, stage] = resources.nodes * resources.tasks
    assert [gpus["wan-1.3b", stage] for stage in STAGES] == [1, 1, 16, 16, 1]
    assert [gpus["wan-14b-teacher", stage] for stage in STAGES] == [1, 1, 64, 64, 1]
