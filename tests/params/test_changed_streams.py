"""Parameters of clips from a picture and of streams whose prompt changes: refused in one line, or ignored."""

import pytest

from filmstill.errors import FilmstillError
from filmstill.params.profile import compose

STARTS = "the first frame of a block of the student: {}, …"
FIRST_ALONE = (
    "student.independent_first=true world.frames=13 world.period=13 distill.rollout_frames=null ode_init.clips=1"
)
FIRST_ALONE += (
    " distill.gate.stream_frames=61 samples.long_frames=241 samples.changed_frames=157 student.window_frames=9"
)


OTHERS = "0, or from 2 to samples.prompts (64): a prompt changes to another one of them"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("samples.change_frame=25", f"change_frame: is 25, allowed: {STARTS.format('3, 6, 9')}"),
        ("samples.change_frame=0", "change_frame: is 0, allowed: an integer in [1, 1000000]"),
        (
            "student.block_frames=6 samples.change_frame=3",
            f"change_frame: is 3, allowed: {STARTS.format('6, 12, 18')}",
        ),
        (FIRST_ALONE, f"change_frame: is 24, allowed: {STARTS.format('1, 4, 7')}"),
        ("samples.changed_frames=155", "changed_frames: is 155, allowed: whole blocks of the student: 3, 6, 9, …"),
        (
            "samples.changed_frames=42",
            "changed_frames: is 42, allowed: at least 45: change_frame, 3 blocks and evaluate.window_frames (12)",
        ),
        (
            "evaluate.window_frames=124",
            "changed_frames: is 156, allowed: at least 157: change_frame, 3 blocks and evaluate.window_frames (124)",
        ),
        ("samples.changed_prompts=1", f"changed_prompts: is 1, allowed: {OTHERS}"),
        ("samples.changed_prompts=65", f"changed_prompts: is 65, allowed: {OTHERS}"),
    ],
)
def test_what_no_student_could_stream_or_no_window_could_judge_is_refused(words: str, line: str):
    with pytest.raises(FilmstillError) as raised:
        compose("embedded", words.split())
    assert str(raised.value) == f"profile embedded: samples.{line}"


@pytest.mark.parametrize(
    "words",
    [
        "samples.change_frame=3",
        "samples.changed_frames=45",
        f"{FIRST_ALONE} samples.change_frame=25",
        f"{FIRST_ALONE} samples.change_frame=1",
        "samples.changed_prompts=0 samples.change_frame=25 samples.changed_frames=5",
        "samples.changed_prompts=2",
    ],
)
def test_what_can_be_streamed_and_judged_is_allowed(words: str):
    assert compose("embedded", words.split()).samples.changed_prompts in (0, 2, 48)


def test_the_open_world_ignores_them():
    params = compose("wan-1.3b", ["samples.change_frame=5", "samples.changed_prompts=1", "samples.changed_frames=2"])
    assert params.samples.changed(params.world.name) == 0
