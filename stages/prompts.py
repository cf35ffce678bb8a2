"""Filter the raw prompt table to train and eval prompts."""

from filmstill.cluster.run import run_stage
from filmstill.params.prompts import Prompts
from filmstill.prompts.filter import filter_prompts, show_counts
from filmstill.work.stage import Stage


def main(stage: Stage) -> None:
    """Write the tables of data/prompts; print the number of rows that each step kept and dropped."""
    show_counts(filter_prompts(stage.params.section(Prompts, "prompts"), stage.out / "prompts"))


if __name__ == "__main__":
    run_stage("prompts", main)
