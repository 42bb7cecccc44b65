"""The package's logger."""

import contextlib
import importlib
import io
import logging
import subprocess
import sys

import pytest

from distil_nlp.utils import logging as package_logging
from distil_nlp.utils.logging import get_logger
from tests.helpers import ROOT

PACKAGE = logging.getLogger("distil_nlp")
logger = get_logger("distil_nlp.a.module")


def test_a_line_comes_once_and_as_it_is(capsys):
    """Prevents lines that come twice where the root logger has handlers too, and text that is taken for a format."""
    root = logging.StreamHandler(sys.stdout)
    logging.root.addHandler(root)
    try:
        logger.info("100% of %s\nsecond line")
        logger.info("─ %d")
    finally:
        logging.root.removeHandler(root)
    assert capsys.readouterr() == ("100% of %s\nsecond line\n─ %d\n", "")


def test_the_handler_is_attached_once():
    """Prevents one more copy of each line for every module, and for every reload in a notebook."""
    get_logger("distil_nlp.another")
    importlib.reload(package_logging)
    assert [type(handler).__name__ for handler in PACKAGE.handlers].count("_StdoutHandler") == 1  # pytest has more


def test_a_level_silences_the_package(capsys):
    """Prevents a library that a notebook cannot silence."""
    PACKAGE.setLevel(logging.WARNING)
    try:
        logger.info("silent")
        logger.info("silent")
        logger.warning("heard")
    finally:
        PACKAGE.setLevel(logging.INFO)
    assert capsys.readouterr().out == "heard\n"


@pytest.mark.parametrize(("rank", "printed"), [("0", "hello\n"), ("1", "")])
def test_the_main_process_alone_logs(monkeypatch, capsys, rank, printed):
    """Prevents a line from each of several processes."""
    monkeypatch.setenv("RANK", rank)
    logger.info("hello")
    assert capsys.readouterr().out == printed


def test_lines_and_tracebacks_are_redacted_without_the_record_factory(capsys, monkeypatch, tmp_path):
    """Prevents a token in a notebook's output, where no command line set anything up."""
    monkeypatch.setenv("HOME", str(tmp_path))
    factory = logging.getLogRecordFactory()
    logging.setLogRecordFactory(logging.LogRecord)
    token = "hf_" + "a1B2" * 9
    try:
        raise ValueError(token)
    except ValueError:
        logger.exception("%s of %s", token, tmp_path)
    finally:
        logging.setLogRecordFactory(factory)
    printed = capsys.readouterr().out
    assert printed.startswith("hf_… of ~\n")
    assert printed.endswith("ValueError: hf_…\n")
    assert token not in printed


def test_a_stdout_that_is_replaced_gets_the_lines():
    """Prevents lines that go to the stream of the time of import, past a notebook's cell."""
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        logger.info("here")
    assert stream.getvalue() == "here\n"


def test_a_line_that_cannot_be_written_raises(monkeypatch):
    """Prevents a run that goes on without its output, with a traceback for each line, where the disk is full."""

    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(OSError, match="No space left"):
        logger.info("lost")


def test_a_library_user_sees_messages_and_keeps_own_settings():
    """Prevents messages that need a set-up to be seen, and a handler or level of the user that is overridden."""
    seen = "from distil_nlp.utils.logging import get_logger; get_logger('distil_nlp.x').info('seen')"
    own = "import logging, sys; p = logging.getLogger('distil_nlp')"
    handler = f"{own}; p.addHandler(logging.StreamHandler(sys.stdout)); p.setLevel('INFO'); {seen}"
    for code, printed in ((seen, "seen\n"), (handler, "seen\n"), (f"{own}; p.setLevel('WARNING'); {seen}", "")):
        assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == printed
