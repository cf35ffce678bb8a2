"""The section `student`: which rollouts are refused, and what a file's header must hold."""

from dataclasses import asdict

import pytest

from filmstill.errors import FilmstillError
from filmstill.params.student import Student


def test_a_window_that_does_not_hold_sink_and_block_is_refused():
    """Defect 4: the released code silently overwrites the sink."""
    assert Student(block_frames=3, sink_frames=2, window_frames=5).window_frames == 5
    with pytest.raises(FilmstillError) as refused:
        Student(block_frames=3, sink_frames=2, window_frames=4)
    assert str(refused.value) == "window_frames: is 4, allowed: null, or at least sink_frames + block_frames = 5"


def test_a_header_gives_the_student_back_and_a_missing_key_is_named():
    student = Student(denoising_steps=2, block_frames=1, window_frames=4, sink_frames=1, context_noise=0.1)
    facts = {**asdict(student), "shift": 5.0}
    assert Student.of(facts, "s.safetensors") == student
    del facts["sink_frames"]
    with pytest.raises(
        FilmstillError, match=r"^s\.safetensors: its header has no 'sink_frames': .*convert --to filmstill"
    ):
        Student.of(facts, "s.safetensors")
