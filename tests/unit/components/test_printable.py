import json

import pytest

from components.errors import ConfigError
from components.printable import one_line, printable, redacted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://rcg:hunter2@mlflow:5000/x", "http://***@mlflow:5000/x"),
        ("see https://rcg:p@ss:w@host/a@b.", "see https://***@host/a@b."),
        ("http://rcg:pa/ss@host", "http://***@host"),
        ("https://ghp_token@github.com/a", "https://***@github.com/a"),
        ("postgresql+psycopg2://mlflow:x@db/m", "postgresql+psycopg2://***@db/m"),
        ("ssh://git@host/x and ssh://git:x@host", "ssh://git@host/x and ssh://***@host"),
        (
            "s3://b/k?X-Amz-Signature=ab&X-Amz-Credential=c&part=2",
            "s3://b/k?X-Amz-Signature=***&X-Amz-Credential=***&part=2",
        ),
        ("http://h/?token=abc", "http://h/?token=***"),
    ],
)
def test_secrets_of_uris_are_left_out(text: str, shown: str) -> None:
    assert redacted(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "models:/rcg@champion",
        "file:///home/a@b/c",
        "http://host:8080/x@y",
        "s3://bucket/a@b",
        "git@host:x",
        "a: b@c",
        "http://h:80 me@x",
        "sqlite:////a/b.db",
    ],
)
def test_other_text_stays(text: str) -> None:
    assert redacted(text) == text


def test_a_terminal_obeys_nothing() -> None:
    text = "a\x1b[2Jb\rc\x9b1md\u202ee\ud800\x07\x7f\u2028 ü 漢\tf\ng"
    shown = printable(text)
    assert shown == "a\\u001b[2Jb\\u000dc\\u009b1md\\u202ee\\ud800\\u0007\\u007f\\u2028 ü 漢\tf\ng"
    assert json.loads(printable(json.dumps({"name": text}, ensure_ascii=False))) == {"name": text}
    assert one_line("x\nidentical\r") == "x\\nidentical\\u000d"


def test_an_error_tells_no_password_and_its_facts_stay_below_their_names() -> None:
    error = ConfigError("no http://a:b@h", got="http://a:b@h\nerror: all is well", expected=3, fix="try http://a:b@h")
    assert "a:b" not in str(error)
    assert (error.got, error.expected) == ("http://***@h\nerror: all is well", 3)
    assert [line for line in str(error).splitlines() if not line.startswith("  ")] == ["no http://***@h"]
