"""What every option of the command line refuses."""

import inspect
from typing import Any, get_args

import pytest
from typer.testing import CliRunner

from flows.commands.table import VERBS, app
from flows.commands.terminal import finite

FLOATS = {
    (module.__name__.rpartition(".")[2], name): get_args(parameter.annotation)[1]
    for module in VERBS
    for name, parameter in inspect.signature(module.command).parameters.items()
    if "float" in str(parameter.annotation)
}


def test_floats_are_finite() -> None:
    assert {("sample", "share"), ("sample", "guidance"), ("gc", "days")} <= FLOATS.keys()
    assert [place for place, option in FLOATS.items() if option.callback is not finite] == []


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("command", [("gc", "--days"), ("sample", "--guidance"), ("sample", "--share")])
def test_what_is_not_finite_is_a_usage_error(command: Any, value: str) -> None:
    found = CliRunner().invoke(app, [*command, value])
    assert found.exit_code == 2, found.output
