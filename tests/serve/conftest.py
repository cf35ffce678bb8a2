"""The files of a tiny student, which the tests of serving share."""

import pytest
import torch

from filmstill.models.codec import DctCodec
from filmstill.models.load import save_hashed_words
from filmstill.models.text import HashedWords
from filmstill.models.weights import save_model
from filmstill.params.student import Student
from filmstill.params.world import World
from filmstill.serve.streamer import Files
from filmstill.training.setup import student_facts
from goldens import TINY, tiny

STUDENT = Student(denoising_steps=2, block_frames=3, window_frames=None, sink_frames=1)
CHANNELS = 16


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files of a tiny student with random weights."""
    folder = tmp_path_factory.mktemp("student")
    config = TINY.__class__(**{**TINY.__dict__, "in_channels": CHANNELS})
    torch.manual_seed(0)
    model = tiny("causal").__class__(config)
    facts = student_facts(3.0, STUDENT, World(frames=6), CHANNELS)
    save_model(folder / "student.safetensors", model.state_dict(), config, facts)
    DctCodec(torch.zeros(CHANNELS), torch.ones(())).save(folder / "codec.safetensors")
    save_hashed_words(folder / "text", HashedWords(8, config.text_dim))
    return Files(folder / "student.safetensors", folder / "codec.safetensors", folder / "text")
