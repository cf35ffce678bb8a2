"""--prompts-at: what is read, and what is refused in one line."""

import pytest

from filmstill.errors import FilmstillError
from filmstill.models.attention import BlockCausal
from filmstill.serve.prompt_schedule import FORM, PromptSchedule


@pytest.mark.parametrize(
    ("text", "starts", "prompts"),
    [
        ("0: a red star", (0,), ("a red star",)),
        ("0: a red star; 48: a blue heart", (0, 48), ("a red star", "a blue heart")),
        (" 0 :a red star ;48:a blue heart; ", (0, 48), ("a red star", "a blue heart")),
        ("0: a clock; 12:30 shows", (0,), ("a clock; 12:30 shows",)),
        ("0: a star; it is red; 12: at 9:30 a heart", (0, 12), ("a star; it is red", "at 9:30 a heart")),
    ],
)
def test_frames_and_prompts_are_read(text: str, starts: tuple[int, ...], prompts: tuple[str, ...]):
    assert PromptSchedule.parse(text) == PromptSchedule(starts, prompts)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a red star", f"is 'a red star', allowed: latent frames and prompts, as in {FORM}"),
        ("", f"is '', allowed: latent frames and prompts, as in {FORM}"),
        ("0: ; 3: a star", f"is '0: ; 3: a star', allowed: latent frames and prompts, as in {FORM}"),
        ("3: a red star", "is 3, allowed: 0 for the first prompt's frame"),
        ("0: a; 6: b; 3: c", "is 3, allowed: a frame after 6, where the prompt before it begins"),
        ("0: a; 0: b", "is 0, allowed: a frame after 0, where the prompt before it begins"),
    ],
)
def test_another_form_and_an_order_that_is_none_are_refused(text: str, line: str):
    with pytest.raises(FilmstillError) as refused:
        PromptSchedule.parse(text)
    assert str(refused.value) == f"--prompts-at: {line}"


@pytest.mark.parametrize(
    ("attention", "start", "frames", "line"),
    [
        (BlockCausal(3), 4, 12, "is 4, allowed: the first frame of a block: 3, 6, 9, …"),
        (BlockCausal(3, independent_first=True), 3, None, "is 3, allowed: the first frame of a block: 1, 4, 7, …"),
        (BlockCausal(3), 12, 12, "is 12, allowed: a frame of the stream, which has 12"),
    ],
)
def test_a_prompt_begins_where_a_block_of_the_stream_does(
    attention: BlockCausal, start: int, frames: int | None, line: str
):
    schedule = PromptSchedule((0, start), ("a", "b"))
    with pytest.raises(FilmstillError) as refused:
        schedule.check(attention, frames)
    assert str(refused.value) == f"--prompts-at: {line}"
    PromptSchedule((0, 7 if attention.independent_first else 6), ("a", "b")).check(attention, frames)


def test_every_prompt_is_read_once_and_equal_ones_are_one_object():
    read = []

    def reader(prompt: str) -> list:
        read.append(prompt)
        return [prompt]

    text_at = PromptSchedule((0, 3, 9), ("a", "b", "a")).text_at(reader)
    assert read == ["a", "b"]
    assert [text_at(frame)[0] for frame in (0, 2, 3, 8, 9, 3000)] == ["a", "a", "b", "b", "a", "a"]
    assert text_at(0) is text_at(9)
