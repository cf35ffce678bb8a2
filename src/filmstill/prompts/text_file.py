"""Read the lines of a text file that the user wrote: the one place that decodes prompt tables and word lists.

The encoding is that of the byte order mark (UTF-8, UTF-16, UTF-32), without one UTF-8. Other encodings are refused: a
guess may be wrong, and the prompts would be too. An error names the byte offset. So is another kind of file under the
name of a table, as a failed download leaves it: its lines would become prompts, or a word list without a word to find.
"""

import codecs
import io
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from filmstill.errors import FilmstillError, require
from filmstill.params.prompts import Prompts
from filmstill.runtime.file_kind import AGAIN, PICKLE, SAFETENSORS, ZIP, fault_of, first_bytes, kind_of

LONGEST_LINE = 64 * 2**20  # characters; far above any prompt (VidProM's longest has 29,200)
MARKS = (  # UTF-32 first: its little-endian mark starts with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF8, "utf-8"),
)
HEAD = 4096  # bytes by which a file without a mark is judged
# Beginnings that no prompt and no word has. Other text may be a prompt, "<3 a heart" and "[cinematic] a cat" too.
NO_LIST = re.compile(r"version https://git-lfs|<!doctype html|<html[\s>]|<head>|<body[\s>]|<\?xml\s", re.IGNORECASE)
BINARY = {
    SAFETENSORS: "is weights (safetensors)",
    ZIP: "is a zip archive, perhaps an Excel workbook or weights of torch.save",
    PICKLE: "is a pickle, perhaps weights",
}
KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
TABLE = "a prompt table (.csv or .txt)"
WORD_LIST = "a text file with one word or phrase per line"


def check_files(params: Prompts) -> None:
    """Raise FilmstillError for the first file of the section `prompts` that `check_file` refuses; none is read."""
    for name, allowed in (("raw", TABLE), ("extension", TABLE), ("unsafe_words", WORD_LIST)):
        path = getattr(params, name)
        require(bool(path), f"prompts.{name}", path, f"the path of {allowed}")
        check_file(Path(path), allowed, may_be_empty=allowed == WORD_LIST)


def check_file(path: Path, allowed: str, may_be_empty: bool = False) -> None:
    """Raise FilmstillError unless `path` is a file with content; a pipe or device is never opened.

    may_be_empty: accept a file without content, and /dev/null.
    """
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise FilmstillError(f"{path}: no such file; {allowed} is needed") from None
    except (OSError, ValueError) as error:  # a path that is too long, contains a NUL byte or may not be looked into
        raise FilmstillError(f"{path!s:.200}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if may_be_empty and os.path.samestat(found, os.stat(os.devnull)):
        return
    if not stat.S_ISREG(found.st_mode):
        kind = KINDS.get(stat.S_IFMT(found.st_mode), "a device")
        raise FilmstillError(f"{path}: is {kind}, allowed: {allowed}")
    if found.st_size == 0 and not may_be_empty:
        raise FilmstillError(f"{path}: is empty; {allowed} is needed")


def read_lines(path: Path, allowed: str, may_be_empty: bool = False) -> Iterator[str]:
    r"""Yield the lines with their line ends (\n, \r\n or \r), without a byte order mark.

    Raises FilmstillError as `check_file` does, for another kind of file, and with the byte offset where it is not text.
    """
    check_file(path, allowed, may_be_empty)
    try:
        with path.open("rb") as file:
            encoding, offset = _encoding(path, file.read(HEAD))
            _check_kind(path, allowed, encoding, offset)
            file.seek(offset)
            with io.TextIOWrapper(file, encoding, newline="") as text:
                try:
                    while line := text.readline(LONGEST_LINE + 1):
                        _check_line(path, line, encoding, offset)
                        yield line
                        offset += len(line.encode(encoding))
                except UnicodeDecodeError:
                    raise _not_text(path, encoding, offset) from None
    except OSError as error:
        raise FilmstillError(f"{path}: cannot be read ({error.strerror})") from error


def _check_kind(path: Path, allowed: str, encoding: str, offset: int) -> None:
    """Raise FilmstillError for a file whose first bytes surely are of another kind than a user's text."""
    start = first_bytes(path)
    if kind := kind_of(start):
        raise FilmstillError(f"{path}: {BINARY[kind]}, allowed: {allowed}")
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(start[offset:]).lstrip()  # drops a cut character
    except UnicodeDecodeError:
        text = "\0"  # no text
    if "\0" not in text and not NO_LIST.match(text) and not _is_object(text):
        return
    fault = fault_of(path)
    if fault and not fault.what.startswith(("is neither", "is empty")):
        raise FilmstillError(f"{path}: {fault.what}, allowed: {allowed}; {fault.remedy}")
    if NO_LIST.match(text):  # in UTF-16 or UTF-32, as PowerShell saves a page
        raise FilmstillError(f"{path}: is a web page or another file of a server, allowed: {allowed}; {AGAIN}")


def _is_object(text: str) -> bool:
    """Whether the text is one JSON object, as a server's error is."""
    try:
        return text.startswith("{") and isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _encoding(path: Path, head: bytes) -> tuple[str, int]:
    """The encoding and the length of the byte order mark. Raises FilmstillError for UTF-16 and UTF-32 without one."""
    for mark, encoding in MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    if unmarked := _unmarked(head):
        raise FilmstillError(
            f"{path}: is {unmarked} without a byte order mark, allowed: UTF-8, or UTF-16 and UTF-32 with the mark; "
            f"save it as UTF-8 (iconv -f {unmarked} -t UTF-8)"
        )
    return "utf-8", 0


def _unmarked(head: bytes) -> str | None:
    """UTF-16 or UTF-32 if the zero bytes are where mostly ASCII text in it has them, and nowhere else."""
    for order, at in (("LE", 0), ("BE", -1)):  # position of the byte that is not zero
        units = [head[i : i + 4] for i in range(0, len(head) - 3, 4)]
        if len(units) > 1 and all(unit[at] and unit.count(0) == 3 for unit in units):
            return f"UTF-32{order}"
        pairs = [head[i : i + 2] for i in range(0, len(head) - 1, 2)]
        zeros = sum(pair[-1 - at] == 0 for pair in pairs)
        if zeros > 1 and 2 * zeros > len(pairs) and all(pair[at] for pair in pairs):
            return f"UTF-16{order}"
    return None


def _check_line(path: Path, line: str, encoding: str, offset: int) -> None:
    if len(line) > LONGEST_LINE:
        raise FilmstillError(f"{path}: byte {offset}: a line of more than {LONGEST_LINE >> 20} MB; not a prompt table")
    if (nul := line.find("\0")) >= 0:
        byte = offset + len(line[:nul].encode(encoding))
        raise FilmstillError(
            f"{path}: byte {byte}: a NUL byte; not a text file, damaged, or UTF-16 without a byte order mark: save it "
            "as UTF-8"
        )


def _not_text(path: Path, encoding: str, offset: int) -> FilmstillError:
    """Error with the first byte after `offset`, where a line begins, that is not in the encoding."""
    with path.open("rb") as file:
        file.seek(offset)
        rest = file.read(4 * LONGEST_LINE + io.DEFAULT_BUFFER_SIZE)  # more than the text layer can have read ahead
    try:
        rest.decode(encoding)
        at = 0  # the file has changed
    except UnicodeDecodeError as error:
        at = error.start
    name = encoding.upper().removesuffix("-LE").removesuffix("-BE")
    return FilmstillError(f"{path}: byte {offset + at}: not {name} (0x{rest[at]:02x}); save it as UTF-8")
