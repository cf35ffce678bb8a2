"""How values of params.yaml are read: as DVC reads them, of their own type, in bounds, of a bounded size."""

import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from dvc.utils.serialize import load_yaml
from omegaconf import OmegaConf

from filmstill.errors import FilmstillError
from filmstill.params.keys import INTERVAL
from filmstill.params.load import Values
from filmstill.params.profile import check, compose, write
from filmstill.params.schema import Params
from filmstill.params.teacher import Teacher
from repository import ROOT


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """params.yaml of the embedded profile in an empty folder, which becomes the current one."""
    monkeypatch.chdir(tmp_path)
    write("embedded", [])
    return Path("params.yaml")


def put(params: Path, key: str, text: str) -> None:
    """Write `text` as the value of a key that occurs once in params.yaml."""
    changed, count = re.subn(rf"(?m)^( *{key}:) \S+", lambda line: f"{line[1]} {text}", params.read_text())
    assert count == 1
    params.write_text(changed)


def refused(read=check) -> str:
    with pytest.raises(FilmstillError) as caught:
        read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "here", "there"),
    [
        ("012", "10", "12"),
        ("0o12", "'0o12'", "10"),
        ("1:30", "90", "'1:30'"),
        ("yes", "True", "'yes'"),
        ("Off", "False", "'Off'"),
        ("09", "'09'", "9"),
        ("${ode_pairs.nodes}", "4", "'${ode_pairs.nodes}'"),
        ("2026-11-27", "'2026-11-27'", "datetime.date(2026, 11, 27)"),
    ],
)
def test_a_value_that_dvc_would_record_otherwise_is_refused(params: Path, text: str, here: str, there: str):
    put(params, "long_prompts", text)
    assert refused() == (
        f"params.yaml: samples.long_prompts: is {here} here and {there} to DVC, which would record that; allowed: a "
        "plain decimal number, true, false, null, or text in quotes"
    )


@pytest.mark.parametrize(("text", "value"), [("1_0", 10), ("0x1F", 31), ("+5", 5)])
def test_what_both_read_alike_is_read(params: Path, text: str, value: int):
    put(params, "sheet_prompts", text)
    assert check().evaluate.sheet_prompts == value == load_yaml(params)["evaluate"]["sheet_prompts"]


def test_a_profile_and_an_override_are_read_so_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert refused(lambda: compose("embedded", ["teacher.steps=012"])).startswith(
        "override 'teacher.steps=012': is 10 here and 12 to DVC"
    )
    monkeypatch.chdir(tmp_path)
    Path("params").mkdir()
    Path("params/mine.yaml").write_text("teacher: {steps: 012}")
    message = refused(lambda: compose("mine", []))
    assert message.startswith("params/mine.yaml: teacher.steps: is 10 here and 12 to DVC")


def test_the_profiles_of_the_repository_are_read_alike_by_dvc():
    for path in (ROOT / "params").glob("*.yaml"):
        assert load_yaml(path) == OmegaConf.to_container(OmegaConf.load(path)), path


@pytest.mark.parametrize(
    ("key", "text", "allowed"),
    [
        ("freq_dim", '"64"', "an integer"),
        ("objective", "12", "text"),
        ("raw", "true", "text"),
        ("fast_decoder", "1", "true or false"),
        ("activation_checkpointing", '"true"', "true or false"),
        ("amplitude", '"6.0"', "a number"),
    ],
)
def test_a_value_of_another_type_is_refused(params: Path, key: str, text: str, allowed: str):
    """OmegaConf would convert it, and dvc.lock would record it as it is written."""
    put(params, key, text)
    assert re.fullmatch(rf"params\.yaml: \w+\.{key}: is .+, allowed: {allowed}", refused())


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("threads", "1000000", "compute.threads: is 1000000, allowed: an integer in [1, 512]"),
        ("dim", "960000000", "model.dim: is 960000000, allowed: an integer in [2, 65536]"),
        ("critic_updates", str(10**30), f"distill.critic_updates: is {10**30}, allowed: an integer in [1, 1000]"),
        ("amplitude", str(10**400), "world: holds a number that is too large"),
        ("raw", "null", "prompts.raw: is None, allowed: text"),
        ("raw", "''", "prompts.raw: is '', allowed: the path of a file, relative to the repository"),
        ("unsafe_words", "' '", "prompts.unsafe_words: is ' ', allowed: the path of a file"),
    ],
)
def test_a_value_that_no_machine_can_meet_is_refused(params: Path, key: str, text: str, message: str):
    put(params, key, text)
    assert message in refused()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("model.dim=65536", "model.num_layers=9"),
            "model.num_layers: is 9, allowed: fewer layers or channels: ",
        ),
        (
            ("ode_init.batch=16", "compute.micro_batch=5"),
            "ode_init.batch: is 16, allowed: a multiple of 5 samples (compute.micro_",
        ),
        (("prompts.world=null",), "prompts.world: is None, allowed: symbols where world.name is symbols: null would"),
        (("samples.fast_decoder=true",), "samples.fast_decoder: is True, allowed: false where world.name is symbols"),
    ],
)
def test_values_that_do_not_go_together_are_refused(overrides: tuple[str, ...], message: str):
    assert message in refused(lambda: compose("embedded", list(overrides)))


def test_every_number_has_bounds():
    def unbounded(section: type, name: str) -> list[str]:
        nested = [found for f in fields(section) if is_dataclass(f.type) for found in unbounded(f.type, f.name)]
        numbers = (f for f in fields(section) if f.type in (int, float, int | None, float | None))
        return nested + [f"{name}.{f.name}" for f in numbers if INTERVAL not in f.metadata]

    assert unbounded(Params, "") == [".seed"]  # its bound is checked by Values.seed


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"
        "d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d]",
        "a: &a [*a]",
        "a: " + 100_000 * "[" + 100_000 * "]",
        "a: [" + 30_000 * "1," + "]",
    ],
    ids=["alias bomb", "a value in itself", "depth", "length"],
)
def test_more_than_parameters_can_hold_is_refused_at_once(params: Path, text: str):
    params.write_text(text)
    assert refused() == "params.yaml: holds too much, allowed: at most 20000 values, aliases expanded, nested 50 deep"


@pytest.mark.parametrize("text", ["!!int 012", '!!int ""', "!!bool x", "!!timestamp x", "!!map [1]", "!mine 1"])
def test_a_tag_is_refused(params: Path, text: str):
    put(params, "long_prompts", text)
    assert re.fullmatch(r"params\.yaml: holds the tag \S+, allowed: plain YAML, without tags", refused())


@pytest.mark.parametrize("digits", ["0x" + 5000 * "f", 5000 * "9"])
def test_more_digits_than_python_reads_are_refused(params: Path, digits: str):
    put(params, "seed", digits)
    assert refused() == "params.yaml: holds a value longer than 4000 characters"
    assert "holds a value longer than 4000 characters" in refused(lambda: compose("embedded", [f"seed={digits}"]))


def test_a_large_file_is_refused_unread(params: Path):
    params.write_bytes(b"#" * 2_000_000)
    assert refused() == "params.yaml: is larger than 1000000 bytes, allowed: a YAML file of parameters"


@pytest.mark.parametrize("content", [b"\xff\xfea\x00", b"a: \xff", b"a: !!python/object:os.system x", b"a: 1\na: 2\n"])
def test_other_content_is_one_line(params: Path, content: bytes):
    params.write_bytes(content)
    assert refused().startswith("params.yaml: ")


def test_values_are_read_once(params: Path):
    read = Values.read()
    params.write_text(params.read_text().replace("muon_lr: 0.02", "muon_lr: 0.05"))
    assert read.section(Teacher, "teacher").muon_lr == 0.02
    assert Values.read().section(Teacher, "teacher").muon_lr == 0.05
