"""filmstill's log on stderr: the prefix of a warning, one handler per process, and a closed stderr."""

import logging
import sys
from collections.abc import Iterator

import pytest
from tqdm import tqdm

from filmstill.runtime.logs import log_to_stderr

LOG = logging.getLogger("filmstill.somewhere")


@pytest.fixture(autouse=True)
def fresh_logger() -> Iterator[logging.Logger]:
    """The logger "filmstill" as a new process has it; restored after the test."""
    logger = logging.getLogger("filmstill")
    handlers, level, propagates = logger.handlers[:], logger.level, logger.propagate
    logger.handlers[:], logger.propagate = [], True
    logger.setLevel(logging.NOTSET)
    yield logger
    logger.handlers[:], logger.propagate = handlers, propagates
    logger.setLevel(level)


def test_a_warning_has_a_prefix_an_info_line_none_and_debug_is_not_shown(capsys: pytest.CaptureFixture[str]):
    log_to_stderr()
    LOG.warning("shard %d is damaged", 3)
    LOG.info("waiting for a lock")
    LOG.debug("not for a user")
    assert capsys.readouterr() == ("", "warning: shard 3 is damaged\nwaiting for a lock\n")


def test_called_twice_it_adds_one_handler(capsys: pytest.CaptureFixture[str], fresh_logger: logging.Logger):
    log_to_stderr()
    log_to_stderr()
    assert len(fresh_logger.handlers) == 1
    LOG.info("once")
    assert capsys.readouterr().err == "once\n"


def test_a_line_does_not_reach_the_root_logger_as_well(caplog: pytest.LogCaptureFixture):
    log_to_stderr()
    LOG.warning("once")
    assert caplog.records == []


def test_a_closed_stderr_is_no_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    log_to_stderr()
    monkeypatch.setattr(sys, "stderr", None)
    LOG.warning("lost")
    assert capsys.readouterr().out == ""  # nor does the line end up among a command's output


def test_on_a_terminal_a_line_stands_above_the_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    log_to_stderr()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with tqdm(total=3, desc="steps", file=sys.stderr, mininterval=0) as bar:
        bar.update()
        LOG.info("saved")
    drawn = capsys.readouterr().err
    assert "\rsaved\n" in drawn and drawn.split("saved\n")[1].lstrip("\r").startswith("steps: ")


def test_in_a_file_a_line_of_its_own_draws_no_bar_again(capsys: pytest.CaptureFixture[str]):
    log_to_stderr()
    with tqdm(total=3, desc="steps", file=sys.stderr, mininterval=1000, miniters=1000) as bar:
        bar.update()
        before = capsys.readouterr().err
        LOG.info("saved")
        assert before.startswith("\rsteps: ") and capsys.readouterr().err == "\nsaved\n"
