import logging
import os

import pytest

from flows.commands.table import command_line
from flows.commands.terminal import phases, say, say_lines, show_log


def test_phases_are_numbered_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with phases("promote", 2) as begin:
        begin("sampling")
        begin("comparing")
    shown = capsys.readouterr()
    assert shown.err.splitlines() == ["promote: sampling (1 of 2)", "promote: comparing (2 of 2)"]
    assert not shown.out


def test_phases_are_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with phases("promote", 2) as begin:
        begin("sampling")
    assert "of 2" not in capsys.readouterr().err


def test_text_of_others_moves_no_cursor_and_makes_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("from http://me:secret@host\x1b[1A\x1b[2Kidentical", color="red")
    say_lines(["why: \x9b2K", "condition: cat\nidentical"])
    logging.getLogger("flows").handlers.clear()
    show_log()
    logging.getLogger("flows.x").warning("tag \x1b]0;title\x07 of %s", "s3://k:v@h/b")
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "from http://***@host\\u001b[1A\\u001b[2Kidentical",
        "why: \\u009b2K",
        "condition: cat\\nidentical",
    ]
    assert shown.err == "warning: tag \\u001b]0;title\\u0007 of s3://***@h/b\n"


def test_nothing_is_written_for_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["rcg", "--help"])
    before = os.umask(0)
    try:
        with pytest.raises(SystemExit):
            command_line()
        assert os.umask(0) == 0o002
    finally:
        os.umask(before)
