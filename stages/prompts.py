"""Filter the raw prompt table."""

from filmstill.cluster.run import run_stage
from filmstill.params.load import section
from filmstill.params.prompts import Prompts
from filmstill.prompts.filter import filter_prompts, show_counts
from filmstill.work.stage import Stage


def main(stage: Stage) -> None:
    show_counts(filter_prompts(section(Prompts, "prompts"), stage.out / "prompts"))


if __name__ == "__main__":
    run_stage("prompts", main)
