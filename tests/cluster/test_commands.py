"""`jobs` and `cancel` without a cluster."""

from pathlib import Path

import pytest

from filmstill.cluster.commands import show_jobs
from filmstill.errors import FilmstillError


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("executor: slrm\n", "cluster.yaml: executor: is 'slrm', allowed: one of local, slurm"),
        ("executor: [\n", "cluster.yaml: not readable as YAML: "),
        ("executor: slurm\nstages: {teacher: {nodes: 2}}\n", "cluster.yaml: stages.teacher.nodes: is 2, allowed: 1"),
    ],
)
def test_jobs_names_the_fault_of_cluster_yaml(tmp_path: Path, monkeypatch, text: str, line: str):
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text("stages: {}\n")
    Path("cluster.yaml").write_text(text)
    with pytest.raises(FilmstillError) as error:
        show_jobs()
    assert str(error.value).startswith(line) and "\n" not in str(error.value)
