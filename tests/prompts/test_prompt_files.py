"""Files of prompts and words: their encoding by the byte order mark, folders and devices in place of a file."""

import os
import socket
from pathlib import Path

import pytest

from filmstill.errors import FilmstillError
from filmstill.prompts.filter import check_tables, filter_prompts, read_extension
from filmstill.prompts.safety import read_words
from filmstill.prompts.table import read_table
from filmstill.prompts.text_file import HEAD, check_files
from prompt_tables import params, run, showable, write_csv
from repository import clone, commit
from repository import run as command
from stage_runs import refusal, set_parameter, stage

MARKED = {
    "utf-8": b"\xef\xbb\xbf",
    "utf-16-le": b"\xff\xfe",
    "utf-16-be": b"\xfe\xff",
    "utf-32-le": b"\xff\xfe\0\0",
    "utf-32-be": b"\0\0\xfe\xff",
}
SPECIAL = {"folder": "a folder", "pipe": "a pipe", "socket": "a socket", "/dev/zero": "a device"}


@pytest.fixture(params=MARKED)
def codec(request: pytest.FixtureRequest) -> str:
    return request.param


def marked(text: str, codec: str) -> bytes:
    return MARKED[codec] + text.encode(codec)


def test_every_table_is_read_by_its_byte_order_mark(tmp_path: Path, codec: str) -> None:
    long = "é" * HEAD  # its code units end in another chunk than they begin
    prompts = ["a cat sleeps on a sofa", "夕阳下的海边有一艘小船", "a 🐱 runs", long]
    (tmp_path / "raw.txt").write_bytes(marked("\r\n".join(prompts) + "\r\n", codec))
    assert read_table(tmp_path / "raw.txt", [])["prompt"].tolist() == prompts
    rows = "id,prompt,toxicity\n" + "".join(f'{i},"{prompt}",0.5\n' for i, prompt in enumerate(prompts))
    (tmp_path / "raw.csv").write_bytes(marked(rows, codec))
    table = read_table(tmp_path / "raw.csv", ["toxicity"])
    assert table["prompt"].tolist() == prompts and set(table["toxicity"]) == {0.5}
    (tmp_path / "long.csv").write_bytes(marked("prompt,text\na cat,a long 🐱\n", codec))
    assert read_extension(tmp_path / "long.csv") == {"a cat": "a long 🐱"}
    (tmp_path / "words.txt").write_bytes(marked("Gewehr\r\nÄxte # comment\r\n", codec))
    assert read_words(tmp_path / "words.txt") == ["gewehr", "äxte"]


def test_a_prompt_list_saved_by_powershell_goes_through(tmp_path: Path) -> None:
    prompts = showable(20)
    (tmp_path / "raw.txt").write_bytes(marked("\r\n".join(prompts), "utf-16-le"))
    assert sorted(run(str(tmp_path / "raw.txt"), tmp_path / "out")[0]["prompt"]) == sorted(prompts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a cat\r\na dog".encode("utf-16-le"), "is UTF-16LE without a byte order mark, allowed: UTF-8, or UTF-16 and"),
        ("a cat\r\na dog".encode("utf-16-be"), "save it as UTF-8 (iconv -f UTF-16BE -t UTF-8)"),
        ("a café\r\na dog".encode("utf-16-le"), "is UTF-16LE without"),
        ("a cat\r\na dog".encode("utf-32-le"), "is UTF-32LE without"),
        ("a cat\r\na dog".encode("utf-32-be"), "is UTF-32BE without"),
        ("小船\r\n".encode("utf-16-le"), "byte 3: not UTF-8 (0x82); save it as UTF-8"),
        (b"a cat\0", "byte 5: a NUL byte; not a text file, damaged, or UTF-16 without a byte order mark: save it as"),
        (MARKED["utf-16-le"] + b"a\0\n\0\0\xd8a\0", "byte 6: not UTF-16 (0x00); save it as UTF-8"),
        (MARKED["utf-16-be"] + b"\0a\0", "byte 4: not UTF-16 (0x00)"),
        (MARKED["utf-32-le"] + b"a\0\0\0\xff\xff\xff\xff", "byte 8: not UTF-32 (0xff)"),
        (MARKED["utf-16-le"] + b"a\0\n\0b\0\0\0", "byte 8: a NUL byte"),
        (MARKED["utf-8"] + "a cat\ncafé".encode("cp1252"), "byte 12: not UTF-8 (0xe9)"),
        ("一只猫在草地上".encode("gb18030"), "byte 6: not UTF-8 (0xd4); save it as UTF-8"),
        (b"a cat\n" * 5000 + b"\xff", "byte 30000: not UTF-8 (0xff)"),
        (MARKED["utf-16-le"], "raw.txt: has no line; at least one prompt is needed"),
    ],
)
def test_other_encodings_are_named_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "raw.txt").write_bytes(content)
    with pytest.raises(FilmstillError) as caught:
        run(str(tmp_path / "raw.txt"), tmp_path / "out")
    assert message in str(caught.value) and "\n" not in str(caught.value)


PAGE = "<!DOCTYPE html>\n<html>\nSign in, please\n</html>\n"
OTHER_KINDS = {
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 99\n",
        "is a Git LFS pointer to 99 bytes",
    ),
    "page": (PAGE.encode(), "is a web page (HTML) (<!DOCTYPE html> <html> Sign in"),
    "page after a mark": (b"\xef\xbb\xbf\n" + PAGE.encode(), "is a web page (HTML)"),
    "page by PowerShell": (PAGE.encode("utf-16"), "is a web page or another file of a server"),
    "XML": (b'<?xml version="1.0"?>\n<Error>\n<Code>NoSuchKey</Code>\n</Error>\n', "is XML (<?xml"),
    "JSON": (b'{\n"error": "not found"\n}\n', 'is JSON ({ "error": "not found" })'),
    "gzip": (b"\x1f\x8b\x08\0" + bytes(range(200, 256)), "is a gzip archive"),
    "zip": (b"PK\x03\x04" + bytes(40), "is a zip archive, perhaps an Excel workbook"),
    "weights": (b"\x02\0\0\0\0\0\0\0{}", "is weights (safetensors)"),
    "pickle": (b"\x80\x02}q\0.", "is a pickle, perhaps weights"),
    "zeros": (bytes(2000), "is an unfinished download: its 2000 bytes begin with 1024 zeros"),
}


@pytest.mark.parametrize("name", ["raw", "extension", "unsafe_words"])
@pytest.mark.parametrize(("content", "kind"), OTHER_KINDS.values(), ids=OTHER_KINDS)
def test_another_kind_of_file_gives_no_prompts_and_no_words(
    tmp_path: Path, name: str, content: bytes, kind: str
) -> None:
    suffixes = (".txt",) if name == "unsafe_words" else (".csv",) if name == "extension" else (".txt", ".csv")
    for suffix in suffixes:
        path = tmp_path / f"other{suffix}"
        path.write_bytes(content)
        values = {"raw": write_csv(tmp_path / "raw.csv", showable(20)), name: str(path)}
        with pytest.raises(FilmstillError) as checked:
            check_tables(params(**values))
        with pytest.raises(FilmstillError) as failed:
            filter_prompts(params(**values), tmp_path / "out")
        line = str(failed.value)
        assert str(checked.value) == line and line.startswith(f"{path}: {kind}") and "allowed: a " in line
        assert "\n" not in line and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "first",
    [
        "<3 a heart",
        "<headshot of a woman>",
        "<html5 logo spins>",
        "<xml> in neon",
        "[cinematic] a cat",
        "{red|blue} cat",
        '{"scene": "a cat"}',
        "GGUF, a robot",
        "Rar! cried the crow",
        "BZh, a band",
        "version https://example.org in neon",
    ],
)
def test_a_prompt_that_looks_like_another_kind_is_a_prompt(tmp_path: Path, first: str) -> None:
    (tmp_path / "raw.txt").write_text(f"{first}\na dog\n")
    assert read_table(tmp_path / "raw.txt", [])["prompt"].tolist() == [first, "a dog"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system(tmp_path: Path, end: str) -> None:
    (tmp_path / "raw.txt").write_bytes(f"a cat{end}{end}a dog{end}".encode())
    assert read_table(tmp_path / "raw.txt", [])["prompt"].tolist() == ["a cat", "", "a dog"]
    (tmp_path / "raw.csv").write_bytes(f'id,prompt{end}1,"a{end}cat"{end}2,a dog{end}'.encode())
    assert read_table(tmp_path / "raw.csv", [])["prompt"].tolist() == [f"a{end}cat", "a dog"]


@pytest.fixture(params=SPECIAL)
def special(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """The path of something that is no file, and its kind."""
    made = tmp_path / request.param
    if request.param == "folder":
        made.mkdir()
    elif request.param == "pipe":
        os.mkfifo(made)
    elif request.param == "socket":
        socket.socket(socket.AF_UNIX).bind(str(made))
    return str(made), SPECIAL[request.param]


@pytest.mark.parametrize("name", ["raw", "extension", "unsafe_words"])
def test_what_is_no_file_is_refused_before_it_is_opened(
    tmp_path: Path, special: tuple[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, kind = special
    values = {
        "raw": write_csv(tmp_path / "raw.csv", showable(20)),
        "extension": write_csv(tmp_path / "long.csv", []),
        name: path,
    }
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("opened"))
    for read in (check_files, check_tables):
        with pytest.raises(FilmstillError, match=f"^{path}: is {kind}, allowed: a "):
            read(params(**values))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "prompts.raw: is '', allowed: the path of a prompt table (.csv or .txt)"),
        ("x" * 5000, "x: cannot be read (File name too long)"),
        ("a\0b", "cannot be read (embedded null byte)"),
        ("/dev/null", "/dev/null: is a device, allowed: a prompt table"),
        ("/proc/self/status/raw.csv", "no such file"),
    ],
)
def test_paths_that_lead_nowhere(path: str, message: str) -> None:
    given = params("raw.csv")
    given.raw = path
    with pytest.raises(FilmstillError) as caught:
        check_files(given)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_check_and_stage_refuse_a_folder_before_it_is_hashed(tmp_path: Path) -> None:
    folder = clone(tmp_path)
    (folder / "data/many").mkdir()
    os.mkfifo(folder / "data/many/pipe")  # hashing the folder would wait for a writer
    os.mkfifo(folder / "data/words")
    for key, value, line in (
        ("raw", "data/many", "data/many: is a folder, allowed: a prompt table (.csv or .txt)"),
        ("unsafe_words", "data/words", "data/words: is a pipe, allowed: a text file with one word or phrase per line"),
        ("extension", "data", "data: is a folder, allowed: a prompt table (.csv or .txt)"),
    ):
        command("git", "checkout", "params.yaml", cwd=folder)
        set_parameter(folder, f"prompts.{key}", value)
        assert refusal(command("python", "-m", "filmstill", "check", cwd=folder, check=False, timeout=60)) == line
        assert refusal(stage(folder, "prompts")) == line


def test_check_finds_what_the_stage_provided_will_link(tmp_path: Path) -> None:
    """In a worktree; what is wrong in the main checkout's file is refused by both."""
    folder = clone(tmp_path / "main")
    (folder / ".git/info/exclude").write_text("data/prompts/my_*\n")
    files = {"raw": "my_prompts.txt", "extension": "my_long.csv", "unsafe_words": "my_words.txt"}
    for (key, name), text in zip(files.items(), ("\n".join(showable(20)), "prompt,text\n", "gun\n"), strict=True):
        set_parameter(folder, f"prompts.{key}", f"data/prompts/{name}")
        (folder / "data/prompts" / name).write_text(text)
    commit(folder, "files of the user's")
    other = tmp_path / "other"
    command("git", "worktree", "add", "--quiet", "--detach", str(other), cwd=folder)
    command("python", "-m", "filmstill", "check", cwd=other)
    assert not (other / "data/prompts/my_prompts.txt").exists()
    command("python", "-m", "dvc", "repro", "prompts", cwd=other)
    (folder / "data/prompts/my_words.txt").write_text(PAGE)
    line = "data/prompts/my_words.txt: is a web page (HTML)"
    assert refusal(stage(other, "prompts")).startswith(line)
    (other / "data/prompts/my_words.txt").unlink()
    checked = refusal(command("python", "-m", "filmstill", "check", cwd=other, check=False))
    assert checked.startswith(f"{folder}/{line}")


def test_check_reads_the_tables(tmp_path: Path) -> None:
    folder = clone(tmp_path)
    assert command("python", "-m", "filmstill", "check", cwd=folder).stderr == ""
    command("python", "-m", "dvc", "repro", "provided", cwd=folder)
    (folder / "data/prompts/raw.csv").write_bytes(b"uuid,caption_of\n1,a\n")
    line = refusal(command("python", "-m", "filmstill", "check", cwd=folder, check=False))
    assert line.startswith("data/prompts/raw.csv: lacks the columns prompt, toxicity") and line == refusal(
        stage(folder, "prompts")
    )
