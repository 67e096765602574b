import pytest

from flows.commands.terminal import phases


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
