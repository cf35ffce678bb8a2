"""Atomic files, and safetensors files whose digest detects damage."""

import errno
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from filmstill.errors import FilmstillError
from filmstill.runtime import files, tensor_files
from filmstill.runtime.files import read_json, replacing, require_writable, write_json, write_text
from filmstill.runtime.tensor_files import load_tensors, save_tensors
from filmstill.runtime.tensor_stream import replacing_folder

TENSORS = {"b": torch.arange(6.0).view(2, 3), "a": torch.ones(4, dtype=torch.int64)}
FACTS = {"config": '{"dim": 48}', "facts": '{"shift": 5.0}', "ids": "[1, 2, 3]"}


def refusal(path: Path) -> str:
    """The one-line message of the error for a file, which contains its path."""
    with pytest.raises(FilmstillError) as error:
        load_tensors(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.fixture
def saved(tmp_path) -> Path:
    save_tensors(tmp_path / "x.safetensors", TENSORS, FACTS)
    return tmp_path / "x.safetensors"


def test_tensors_and_metadata_come_back(saved):
    tensors, metadata = load_tensors(saved)
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert FACTS.items() <= metadata.items()
    assert os.listdir(saved.parent) == [saved.name]


def test_same_tensors_are_the_same_bytes(saved, tmp_path):
    """The order of tensors and metadata has no effect, although safetensors shuffles multiple metadata keys."""
    first = saved.read_bytes()
    for i in range(20):
        again = tmp_path / f"{i}.safetensors"
        save_tensors(again, dict(reversed(TENSORS.items())), dict(reversed(FACTS.items())))
        assert again.read_bytes() == first
    save_tensors(saved, {**TENSORS, "a": TENSORS["a"] + 1}, FACTS)
    assert saved.read_bytes() != first


def test_shared_and_strided_tensors_are_saved_by_value(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    save_tensors(tmp_path / "x", {"row": whole[1], "transposed": whole.T, "whole": whole})
    tensors, _ = load_tensors(tmp_path / "x")
    assert torch.equal(tensors["row"], whole[1])
    assert torch.equal(tensors["transposed"], whole.T)


def test_a_truncated_file_is_refused_at_every_length(saved):
    data = saved.read_bytes()
    for length in {0, 1, 7, 8, 9, len(data) // 2, len(data) - 1}:
        saved.write_bytes(data[:length])
        assert "not a whole safetensors file" in refusal(saved)


def test_every_flipped_bit_is_refused(saved):
    """A change of any byte is detected: tensors, names, shapes, metadata and the digest itself."""
    data = saved.read_bytes()
    unnoticed = []
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 7  # never the top bit, so that the header stays ASCII
        saved.write_bytes(flipped)
        try:
            load_tensors(saved)
            unnoticed.append(position)
        except FilmstillError as error:
            assert "\n" not in str(error)
    assert unnoticed == []


def test_a_file_without_a_digest_is_refused(tmp_path):
    """Otherwise one flipped bit in the digest's key would disable the check."""
    save_file(TENSORS, tmp_path / "x.safetensors", metadata=FACTS)
    assert "sha256" in refusal(tmp_path / "x.safetensors").lower()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_is_refused_by_name_and_never_opened(tmp_path, legacy):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "opened",))

    path = tmp_path / "x.safetensors"
    torch.save({"x": Bomb()}, path, _use_new_zipfile_serialization=not legacy)
    assert "a pickle (torch.save)" in refusal(path)
    assert not (tmp_path / "opened").exists()


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.safetensors")
    assert f"{tmp_path}: is a folder, allowed: one .safetensors of filmstill; give the file in it" in refusal(tmp_path)


def test_a_failed_write_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "x.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half of the ne")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.txt"]


def test_the_new_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "deep" / "x.txt"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == path.parent  # required for an atomic rename
        assert not path.exists()
    assert path.read_text() == "new"


def test_json_is_sorted_and_ends_with_a_newline(tmp_path):
    write_json(tmp_path / "x.json", {"b": 1, "a": [0.1]})
    assert (tmp_path / "x.json").read_text() == '{\n  "a": [\n    0.1\n  ],\n  "b": 1\n}\n'


NO_SPACE = os.strerror(errno.ENOSPC)


def refuse_text(*_: object) -> None:
    raise OSError(errno.ENOSPC, NO_SPACE)


def refuse_tensors(*_: object, **__: object) -> None:
    raise SafetensorError(f"Error while serializing: I/O error: {NO_SPACE} (os error 28)")


def save_large(path: Path) -> None:
    save_tensors(path, {"x": torch.ones(50_000)})


def write_large(path: Path) -> None:
    write_text(path, "x" * 200_000)


@pytest.mark.parametrize("write", [save_large, write_large])
@pytest.mark.parametrize("disk", ["real", "pretended"])
def test_a_full_disk_is_one_line_and_leaves_the_old_file_whole(tmp_path, monkeypatch, disk, write):
    """real: a tmpfs of 64 KiB, skipped if mounting is not permitted; pretended: raised errors, which always run."""
    folder = tmp_path / "disk"
    folder.mkdir()
    path = folder / "x"
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
    if disk == "real" and subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a tmpfs is not permitted here; the pretended full disk was tested")
    try:
        save_tensors(path, TENSORS)
        old = path.read_bytes()
        if disk == "pretended":
            monkeypatch.setattr(tensor_files, "save_file", refuse_tensors)
            monkeypatch.setattr(files.os, "fsync", refuse_text)
        with pytest.raises(FilmstillError, match=f"{path}: disk full while writing") as error:
            write(path)
        assert "\n" not in str(error.value)
        assert path.read_bytes() == old
        assert os.listdir(folder) == ["x"]  # the partly written new file was removed
    finally:
        if disk == "real":
            subprocess.run(["umount", folder], check=True)


def test_a_read_only_file_system_is_one_line(tmp_path, monkeypatch):
    """It refuses even to remove the temporary file that is not there."""

    def refuse(*_args, **_options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "write_text", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(FilmstillError, match=r"x\.txt: cannot be written \(Read-only file system\)"):
        write_text(tmp_path / "x.txt", "x")


def test_unwritable_folders_are_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FilmstillError, match=r"file/x.txt: cannot be written") as error:
        write_text(tmp_path / "file" / "x.txt", "x")
    assert "\n" not in str(error.value)


LONGEST = "é" * 125 + "x" * 5  # 255 bytes, the most that a name may have


def test_a_target_with_the_longest_name_is_written(tmp_path):
    """Temporary names are short, whatever the target's name."""
    path = tmp_path / LONGEST
    require_writable(path)
    write_text(path, "x")
    save_tensors(path, TENSORS)
    path.unlink()
    require_writable(path, folder=True)
    with replacing_folder(path) as folder:
        (folder / "x").write_text("x")
    assert os.listdir(tmp_path) == [LONGEST]


@pytest.mark.parametrize(
    ("target", "folder", "message"),
    [
        ("folder", False, "folder: is a folder, allowed: the name of a file; choose another name"),
        ("file", True, "file: is a file, allowed: the name of a folder; choose another name"),
        ("pipe", False, "pipe: is a device, allowed: the name of a file; choose another name"),
        ("file/x.mp4", False, "file/x.mp4: cannot be written: .*file is a file, allowed: a folder; choose another"),
        ("file/a/b/x.mp4", False, "file/a/b/x.mp4: cannot be written: .*/file is a file, allowed: a folder"),
        ("x" * 256, False, r"x: cannot be written \(File name too long\)"),
        ("new/" + "é" * 128, True, "cannot be written: a name of 256 bytes, allowed: at most 255 in"),
    ],
)
def test_a_target_that_cannot_be_written_is_refused_before(tmp_path, target, folder, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FilmstillError, match=message) as error:
        require_writable(tmp_path / target, folder)
    assert "\n" not in str(error.value)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "pipe"]


def test_a_folder_that_refuses_files_is_found_before(tmp_path, monkeypatch):
    """/proc refuses new files even to root, whom no mode of a folder stops."""
    with pytest.raises(FilmstillError, match=r"/proc/new/x\.mp4: cannot be written \(No such file or directory\)"):
        require_writable(Path("/proc/new/x.mp4"))
    monkeypatch.chdir(tmp_path)
    for path in (Path("x.mp4"), Path("new/deep/x.mp4"), tmp_path / "x.mp4"):
        require_writable(path)
    (tmp_path / "x.mp4").touch()
    require_writable(tmp_path / "x.mp4")
    (tmp_path / "empty").mkdir()
    require_writable(tmp_path / "empty", folder=True)
    assert sorted(os.listdir(tmp_path)) == ["empty", "x.mp4"]


@pytest.mark.parametrize(
    ("target", "folder"), [("link/x.mp4", False), ("link/a/b/x.mp4", False), ("link/a", True), ("link", True)]
)
def test_a_link_that_leads_nowhere_is_no_folder(tmp_path, target, folder):
    link = tmp_path / "link"
    link.symlink_to("gone")
    with pytest.raises(FilmstillError) as refused:
        require_writable(tmp_path / target, folder)
    assert str(refused.value) == (
        f"{tmp_path / target}: cannot be written: {link} is a link to gone, which does not exist; make that folder or "
        "choose another"
    )
    require_writable(link)  # a file takes the link's place
    write_text(link, "x")
    assert link.read_text() == "x"


def test_json_nested_too_deeply_is_one_line(tmp_path):
    (tmp_path / "a.json").write_text("[" * 200_000)
    with pytest.raises(FilmstillError, match=r"a\.json: cannot be read as JSON \("):
        read_json(tmp_path / "a.json")
