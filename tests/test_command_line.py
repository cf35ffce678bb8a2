"""How the words of a command line are read: seeds and prompts, paths of the user's folder, the repository's root."""

import os
from pathlib import Path

import pytest

from filmstill.__main__ import main
from filmstill.artifacts import STUDENT
from filmstill.command_line import read_words
from filmstill.errors import FilmstillError
from filmstill.serve.arguments import prompts_and_seeds
from repository import ROOT

SEEDS = "allowed: an integer below 2**63, or several: 1,2,3"


@pytest.mark.parametrize(
    ("words", "prompts", "seeds"),
    [
        (["a"], ["a"], [0]),
        (["a", "b", "--seed", "1"], ["a", "b"], [1]),
        (["a", "--seed", "1", "2", "3"], ["a"], [1, 2, 3]),
        (["a", "--seed", "1", "2", "--out", "x.gif"], ["a"], [1, 2]),
        (["--seed", "1", "a"], ["a"], [1]),
        (["--seed", "1", "2", "a", "7"], ["a", "7"], [1, 2]),
        (["--seed", "1", "2", "--out", "x.gif", "a"], ["a"], [1, 2]),
        (["a", "--seed", "1", "b"], ["a", "b"], [1]),
        (["--seed", "1,2,3", "a"], ["a"], [1, 2, 3]),
        (["--seed", "1", "--seed", "2", "a"], ["a"], [1, 2]),
        (["--seed=1", "a"], ["a"], [1]),
        (["--seed", "1", "7"], ["7"], [1]),  # a prompt that is a number
        (["--seed=1", "7"], ["7"], [1]),
        (["--seed", "1", "--", "7"], ["7"], [1]),
        (["7", "--seed", "1"], ["7"], [1]),
        (["7", "8"], ["7", "8"], [0]),
        (["--seed", "-5", "a 7"], ["a 7"], [-5]),
        (["a", "--seed", str(2**63 - 1)], ["a"], [2**63 - 1]),
    ],
)
def test_no_prompt_is_taken_for_a_seed(words: list[str], prompts: list[str], seeds: list[int]):
    assert prompts_and_seeds(read_words(["generate", *words])) == (prompts, seeds)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--seed", "1"], "generate: has no prompt, allowed: one or more, each in quotes"),
        ([], "generate: has no prompt, allowed: one or more, each in quotes"),
        (["a", "--seed", str(2**63)], f"--seed: is {2**63}, allowed: an integer below 2**63"),
    ],
)
def test_a_command_without_prompt_or_with_an_endless_seed_is_refused(words: list[str], line: str):
    with pytest.raises(FilmstillError) as refused:
        prompts_and_seeds(read_words(["generate", *words]))
    assert str(refused.value) == line


@pytest.mark.parametrize("seed", ["a", "1.5", "1,", "1" * 20, "1\n2"])
def test_a_seed_that_is_no_integer_is_one_line(seed: str, capsys: pytest.CaptureFixture[str]):
    assert main(["generate", "a", "--seed", seed]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"filmstill: argument --seed: is {seed!r}, {SEEDS} (see ")


@pytest.mark.parametrize("word", ["2,", "9" * 20, "2 3", "+", "-1.5", ".", "1,,2", "1, 2"])
def test_a_slip_after_the_seeds_is_no_prompt(word: str, capsys: pytest.CaptureFixture[str]):
    for before in ([], ["a red star sways"]):
        assert main(["generate", *before, "--seed", "1", word, "3"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        remedy = "a prompt of digits goes before --seed"
        assert line.startswith(f"filmstill: argument --seed: is {word!r}, {SEEDS}; {remedy} (see ")


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["generate", "a", "--out", "a\nb.xyz"], r"a\nb.xyz"),
        (["profile", "a\r\nb"], r"a\r\nb"),
        (["profile", "\x1b[2Ja\x85b\u2028"], r"'\x1b[2Ja\x85b\u2028'"),
        (["profile", "smoke", "--a\nb"], r"unrecognized arguments: --a\nb"),
    ],
)
def test_an_error_is_one_line_whatever_it_names(words: list[str], shown: str, capsys: pytest.CaptureFixture[str]):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert shown in error and len(error.splitlines()) == 1 and error.endswith("\n") and "\r" not in error


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "a \udcff"],
        ["generate", "a", "--out", "b\udcff.mp4"],
        ["profile", "smoke", "a=\udcff"],
        ["plan", "\udcff"],
        ["cancel", "\udcd2\udcbb"],
    ],
)
def test_a_word_that_is_no_text_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(words) == 2
    word = repr(os.fsencode(words[-1]))[1:]
    hint = "is not text in utf-8, this locale's encoding; convert it (iconv -t utf-8), or set LC_ALL=C.UTF-8"
    assert capsys.readouterr().err == f"filmstill: argument {word}: {hint}\n"


def test_a_home_folder_that_the_shell_left_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for words in (["--out=~/x.mp4"], ["--out", "~/x.mp4"]):
        assert read_words(["generate", "a", *words]).out == tmp_path / "x.mp4"
    read = read_words(["convert", "~/a", "~/b", "--to", "wan"])
    assert (read.source, read.target) == (tmp_path / "a", tmp_path / "b")
    assert read_words(["generate", "a", "--out", "~no-user/x.mp4"]).out == Path("~no-user/x.mp4")  # as a shell does


def test_from_a_subfolder_commands_run_in_the_root_and_paths_stay_the_users(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(ROOT / "src/filmstill")
    read = read_words(["generate", "a", "--codec", "c.safetensors", "--text", "/t"])
    assert Path.cwd() == ROOT
    assert (read.out, read.codec) == (ROOT / "src/filmstill/clip.mp4", ROOT / "src/filmstill/c.safetensors")
    assert (read.text, read.student) == (Path("/t"), STUDENT)  # the default is the repository's
    assert read_words(["generate", "a", "--out", "b.gif"]).out == Path("b.gif")
    monkeypatch.chdir(ROOT / "docs")
    assert main(["results"]) == 0
    assert "everything on one page: data/evaluate/report.html" in capsys.readouterr().out


def test_outside_a_repository_paths_are_the_current_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    assert read_words(["generate", "a"]).out == Path("clip.mp4") and Path.cwd() == tmp_path
