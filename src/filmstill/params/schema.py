"""params.yaml as a whole: every section's schema, and the checks between sections."""

from dataclasses import dataclass, field

from filmstill.errors import require
from filmstill.params.compute import Compute, micro_batches
from filmstill.params.distill import Distill
from filmstill.params.evaluate import CHANGE_BLOCKS, Evaluate
from filmstill.params.keys import key
from filmstill.params.load import SEEDS
from filmstill.params.model import Model
from filmstill.params.ode_init import OdeInit
from filmstill.params.ode_pairs import OdePairs
from filmstill.params.prompts import Prompts
from filmstill.params.samples import Samples
from filmstill.params.schedule import Schedule
from filmstill.params.shared import window_stride
from filmstill.params.student import Student
from filmstill.params.teacher import NOTHING, Teacher
from filmstill.params.text import Text
from filmstill.params.world import EMBEDDED, MAX_WORDS, OPEN, World


def check_embedded(compute: Compute, model: Model, teacher: Teacher) -> None:
    """Refuse what no teacher of the embedded world can have, trained or imported."""
    allowed = f"at least {MAX_WORDS}, the words of the longest prompt of the symbols world"
    require(model.text_len >= MAX_WORDS, "model.text_len", model.text_len, allowed)
    require(model.in_channels == 16, "model.in_channels", model.in_channels, "16, the codec's")
    require(compute.device == "cpu", "compute.device", compute.device, f"cpu where world.name is {EMBEDDED}")
    score = teacher.real_score
    require(score == NOTHING, "teacher.real_score", score, f"{NOTHING}: a release's is for world.name open")


@dataclass
class Params:
    """The active parameters. Each stage reads its own sections; `profile` checks and writes the whole."""

    seed: int = key(0, "every random number is a function of it, 0 to 2**63 - 1")
    compute: Compute = field(default_factory=Compute)
    world: World = field(default_factory=World)
    model: Model = field(default_factory=Model)
    text: Text = field(default_factory=Text)
    schedule: Schedule = field(default_factory=Schedule)
    student: Student = field(default_factory=Student)
    prompts: Prompts = field(default_factory=Prompts)
    teacher: Teacher = field(default_factory=Teacher)
    ode_pairs: OdePairs = field(default_factory=OdePairs)
    ode_init: OdeInit = field(default_factory=OdeInit)
    distill: Distill = field(default_factory=Distill)
    samples: Samples = field(default_factory=Samples)
    evaluate: Evaluate = field(default_factory=Evaluate)

    def __post_init__(self) -> None:
        require(0 <= self.seed < SEEDS, "seed", self.seed, "an integer in [0, 2**63)")
        window, long = self.evaluate.window_frames, self.samples.long_frames
        require(window <= long, "evaluate.window_frames", window, f"at most samples.long_frames ({long})")
        self._check_world()
        for stage in ("ode_init", "distill"):  # a number of ranks comes on top
            micro_batches(getattr(self, stage).batch, self.compute.micro_batch, f"{stage}.batch", 0, 1)
        self.student.check_frames(self.world.frames, "world.frames")
        self._check_rollouts()
        self._check_chained_clips()
        self._check_streams()
        self.samples.check_student(self.student, self.world.name)
        self._check_changed_streams()
        allowed = f"a divisor of ode_pairs.nodes ({self.ode_pairs.nodes}): the pairs hold no other nodes"
        for name in ("denoising_steps", "first_denoising_steps"):
            steps = getattr(self.student, name)
            require(steps is None or self.ode_pairs.nodes % steps == 0, f"student.{name}", steps, allowed)

    def _check_rollouts(self) -> None:
        """Refuse a longest rollout that no window of a clip's length ends with."""
        frames, longest = self.world.frames, self.distill.rollout_frames
        block = self.student.block_frames
        if self.world.name == OPEN and longest is not None and longest > frames:
            allowed = (
                f"more than a block ({block}), since distill.rollout_frames is more: a later clip's first has no loss"
            )
            require(frames > block, "world.frames", frames, allowed)
        if self.distill.carry_on:
            self._check_carried_streams()
            return
        if longest is None or longest == frames:
            return
        name, stride = "distill.rollout_frames", window_stride(self.world, self.student)
        require(longest > frames, name, longest, f"null, or at least world.frames ({frames})")
        self.student.check_frames(longest, name)
        require(stride % block == 0, "world.period", stride, f"a multiple of student.block_frames ({block})")
        allowed = f"world.frames ({frames}) and a multiple of {stride}, the frames between the windows' starts"
        require((longest - frames) % stride == 0, name, longest, allowed)

    def _check_carried_streams(self) -> None:
        """Refuse streams that are no whole number of clips, or of which a part cannot be carried on."""
        frames, longest, student = self.world.frames, self.distill.rollout_frames, self.student
        assert longest is not None  # params/distill.py
        why = "where distill.carry_on is true"
        allowed = f"a multiple of world.frames ({frames}) above it {why}: every update generates a clip"
        require(longest % frames == 0 and longest > frames, "distill.rollout_frames", longest, allowed)
        allowed = f"a number of frames {why}: they are what is carried on"
        require(student.window_frames is not None, "student.window_frames", student.window_frames, allowed)
        allowed = f"false {why}: a clip in mid-stream has whole blocks"
        require(not student.independent_first, "student.independent_first", True, allowed)
        if student.sink_frames:
            student.check_frames(student.sink_frames, "student.sink_frames")
            allowed = f"at most world.frames - student.block_frames = {frames - student.block_frames} {why}"
            require(
                student.sink_frames <= frames - student.block_frames,
                "student.sink_frames",
                student.sink_frames,
                allowed,
            )
            allowed = f"relative {why} and student.sink_frames is not 0: a stream carries no positions on"
            require(student.positions == "relative", "student.positions", student.positions, allowed)
        stride = window_stride(self.world, student)
        allowed = f"a divisor of world.frames ({frames}) {why}: every clip of a stream must begin as the teacher's do"
        require(frames % stride == 0, "world.period", stride, allowed)

    def _check_chained_clips(self) -> None:
        """Refuse ode_init.clips above 1 where a clip does not loop, or where a block would see a copy of its noise."""
        if self.ode_init.clips == 1:
            return
        world, student, chained = self.world, self.student, f"where ode_init.clips is {self.ode_init.clips}"
        loops = "1: a trajectory can be chained to itself only where clips loop"
        require(
            world.name != OPEN, "ode_init.clips", self.ode_init.clips, f"{loops}, and those of the open world don't"
        )
        require(not world.any_phase, "world.any_phase", True, f"false {chained}: a chained clip begins at frame 0")
        allowed = f"a divisor of world.frames ({world.frames}) {chained}: a chained clip must end where it begins"
        require(world.loops, "world.period", world.period, allowed)
        window, copied = student.window_frames, "a block must not see the copy of its own noise"
        allowed = f"at most world.frames ({world.frames}) {chained}: {copied}"
        require(window is not None and window <= world.frames, "student.window_frames", window, allowed)
        require(student.sink_frames == 0, "student.sink_frames", student.sink_frames, f"0 {chained}: {copied}")

    def _check_streams(self) -> None:
        """Refuse a gate's stream that is shorter than a clip or cuts a block, and a score to reach without a stream."""
        for stage in ("ode_init", "distill"):
            gate, name = getattr(self, stage).gate, f"{stage}.gate.stream_frames"
            if gate.stream_frames is None:
                allowed = f"null where {name} is null: no stream is made to be checked"
                require(gate.min_stream is None, f"{stage}.gate.min_stream", gate.min_stream, allowed)
                continue
            allowed = f"null, or at least world.frames ({self.world.frames})"
            require(gate.stream_frames >= self.world.frames, name, gate.stream_frames, allowed)
            self.student.check_frames(gate.stream_frames, name)

    def _check_changed_streams(self) -> None:
        """Refuse streams that end before the windows in which a new prompt is to be right."""
        samples, window = self.samples, self.evaluate.window_frames
        if not samples.changed(self.world.name):
            return
        least = samples.change_frame + CHANGE_BLOCKS * self.student.block_frames + window
        allowed = f"at least {least}: change_frame, {CHANGE_BLOCKS} blocks and evaluate.window_frames ({window})"
        require(samples.changed_frames >= least, "samples.changed_frames", samples.changed_frames, allowed)

    def _check_world(self) -> None:
        """Refuse what the chosen world cannot do."""
        name, released = self.world.name, self.teacher.released
        if name == EMBEDDED:
            check_embedded(self.compute, self.model, self.teacher)
            fast, allowed = self.samples.fast_decoder, f"false where world.name is {EMBEDDED}: its codec has no other"
            require(not fast, "samples.fast_decoder", fast, allowed)
            kept, allowed = (
                self.prompts.world,
                f"{EMBEDDED} where world.name is {EMBEDDED}: null would train on what it holds out",
            )
            require(kept == EMBEDDED, "prompts.world", kept, allowed)
            return
        allowed = "the folder of a released model: no teacher is trained in the open world"
        require(released != NOTHING, "teacher.released", released, allowed)
        require(self.prompts.world is None, "prompts.world", self.prompts.world, f"null where world.name is {OPEN}")
        for stage in ("ode_init", "distill"):
            gate, allowed = getattr(self, stage).gate, f"null: no judge scores clips where world.name is {OPEN}"
            for name in ("min_all_attributes", "min_stream", "stream_frames"):
                require(getattr(gate, name) is None, f"{stage}.gate.{name}", getattr(gate, name), allowed)
