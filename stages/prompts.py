"""Filter the raw prompt table to train and eval prompts."""

from filmstill.cluster.run import run_stage
from filmstill.params.load import section
from filmstill.params.prompts import Prompts
from filmstill.prompts.filter import filter_prompts, show_counts
from filmstill.prompts.text_file import check_files
from filmstill.work.stage import Stage


def main(stage: Stage) -> None:
    """Write the tables of data/prompts; print the number of rows that each step kept and dropped."""
    show_counts(filter_prompts(section(Prompts, "prompts"), stage.out / "prompts"))


def check() -> None:
    """Refuse a folder or device in place of a table: hashing one may take for ever."""
    check_files(section(Prompts, "prompts"))


if __name__ == "__main__":
    run_stage("prompts", main, check)
