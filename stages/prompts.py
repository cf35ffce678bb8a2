"""Filter the raw prompt table to train and eval prompts."""

from filmstill.cluster.run import run_stage
from filmstill.params.prompts import Prompts
from filmstill.prompts.filter import filter_prompts, show_counts
from filmstill.prompts.text_file import check_files
from filmstill.work.stage import Stage


def main(stage: Stage) -> None:
    """Write the tables of data/prompts; print the number of rows that each step kept and dropped."""
    show_counts(filter_prompts(stage.params.section(Prompts, "prompts"), stage.out / "prompts"))


if __name__ == "__main__":
    # A folder or a device in place of a table would take very long to hash.
    run_stage("prompts", main, check_files=lambda params: check_files(params.prompts))
