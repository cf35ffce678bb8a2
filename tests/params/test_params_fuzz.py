"""Anything written into params.yaml is accepted by `check`, the stages and DVC alike, or refused by one line."""

import re
import resource
import signal
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import yaml
from dvc.utils.serialize import load_yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from filmstill.__main__ import main
from filmstill.params.keys import INTERVAL
from filmstill.params.load import Values
from filmstill.params.profile import write
from filmstill.params.schema import Params
from filmstill.params.shared import SharedParams, student_of
from repository import ROOT

DRAWS, SECONDS_EACH, GIBIBYTES = 400, 5, 4
ODD = [
    *(
        "",
        "~",
        "null",
        "Null",
        "''",
        '"12"',
        "yes",
        "no",
        "on",
        "true",
        "False",
        "y",
        "012",
        "0o12",
        "0x1F",
        "0b1",
        "09",
    ),
    *("1:30", "1_000", "1__0", "2026-11-27", "2026-11-27T10:00:00Z", "+1", "-0", ".5", "1.", "1e3", "2e-6", "1e400"),
    *(".inf", "-.inf", ".nan", "[]", "{}", "[1, 2]", "{a: 1}", "[[[[]]]]", "&a [*a]", "*a", "!!int 012", "!!float 3"),
    *("!!set {a}", "!!binary aGk=", "!!python/name:os.system", "${seed}", "${nothing}", "${oc.env:HOME}", "???", "<<"),
    *("- 1", ": ", "%", "@", "`", "'", '"', "\\", '"\\uD800"', '"\\0"', "\t1", "1 # 2", "#", "|\n    x", "a: b: c"),
    *(str(10**30), str(-(10**30)), str(10**400), "1e308", "1e-308", "data", "/dev/zero", "..", "/", "none.csv"),
]


def keys(section: type = Params, prefix: str = "") -> Iterator[tuple[str, str | None]]:
    """(dotted key, notation of its interval) of every key of params.yaml."""
    for each in fields(section):
        if is_dataclass(each.type):
            yield from keys(each.type, f"{prefix}{each.name}.")
        interval = each.metadata.get(INTERVAL)
        yield f"{prefix}{each.name}", interval.notation if interval else None


KEYS = dict(keys())
bounds = sorted({word for notation in KEYS.values() if notation for word in re.findall(r"[\d.]+", notation)})
numbers = st.integers().map(str) | st.floats().map(str) | st.sampled_from(bounds) | st.integers(-2, 70).map(str)
texts = st.sampled_from(ODD) | numbers | st.text(max_size=20).map(lambda text: text.replace("\n", " "))


def allowed(key: str) -> st.SearchStrategy[str]:
    """Texts of numbers in a key's interval, of its bounds and just outside; any text for a key without interval."""
    if KEYS[key] is None:
        return texts
    low, high = (float(bound) for bound in KEYS[key][1:-1].split(","))
    inside = st.integers(int(low), int(min(high, low + 40))) | st.floats(low, min(high, low + 2))
    return inside.map(str) | st.sampled_from([low, high, low - 1, high + 1]).map(lambda bound: f"{bound:g}")


edits = st.lists(
    st.sampled_from(sorted(KEYS)).flatmap(lambda key: st.tuples(st.just(key), texts | allowed(key) | allowed(key))),
    min_size=1,
    max_size=3,
    unique_by=lambda edit: edit[0],
)


@pytest.fixture(scope="module", autouse=True)
def bounded() -> Iterator[None]:
    """No draw may take more memory than GIBIBYTES or more time than SECONDS_EACH."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + GIBIBYTES * 2**30, before[1]))
    yield
    signal.alarm(0)
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("data", "params", "dvc.yaml"):
        Path(name).symlink_to(ROOT / name)
    write("embedded", [])
    return Path("params.yaml")


def edited(text: str, key: str, value: str) -> str:
    """params.yaml with another text behind a dotted key."""
    lines, at = text.splitlines(), -1
    for depth, name in enumerate(key.split(".")):
        at = next((n for n in range(at + 1, len(lines)) if re.match(rf"{'  ' * depth}{name}:", lines[n])), at)
    lines[at] = f"{lines[at].partition(':')[0]}: {value}"
    return "\n".join(lines) + "\n"


def start_every_stage() -> None:
    """Read, for every stage of dvc.yaml, its parameters as it reads them, and no others."""
    schema = {each.name: each.type for each in fields(Params)}
    read = Values.read()
    for stage in yaml.safe_load(Path("dvc.yaml").read_text())["stages"].values():
        names = {name.partition(".")[0] for name in stage["params"]}
        values = Values({name: read[name] for name in names})
        for name in names:
            assert values.seed >= 0 if name == "seed" else values.section(schema[name], name)
        if {"seed", "world", "text", "compute", "schedule", "model"} <= names:
            SharedParams.of(values)
        if {"student", "world"} <= names:
            student_of(values, values.section(schema["world"], "world"))


@settings(
    max_examples=DRAWS,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(edits)
def test_values_are_accepted_by_all_or_refused_by_one_line(params: Path, capsys: pytest.CaptureFixture, found: list):
    text = params.read_text()
    try:
        changed = text
        for key, value in found:
            changed = edited(changed, key, value)
        params.write_text(changed, encoding="utf-8", errors="surrogateescape")
        signal.alarm(SECONDS_EACH)
        code, said = main(["check"]), capsys.readouterr().err
        if code == 0:
            start_every_stage()
            assert Values.read().values == load_yaml(params)
        else:
            assert code == 2 and re.fullmatch(r"filmstill: [^\n]+\n", said), said
    finally:
        signal.alarm(0)
        params.write_text(text)
