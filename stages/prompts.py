"""Filter the raw prompt table."""

from filmstill.params.load import section
from filmstill.params.prompts import Prompts
from filmstill.prompts.pipeline import filter_prompts, show_counts
from filmstill.runtime.stage import Stage, run


def main(stage: Stage) -> None:
    show_counts(filter_prompts(section(Prompts, "prompts"), stage.out / "prompts"))


if __name__ == "__main__":
    run("prompts", main)
