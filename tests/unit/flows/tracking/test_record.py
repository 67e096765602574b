from pathlib import Path

import pytest

from flows.tracking.pending import leave_request
from flows.tracking.record import StageRecord, Tracking, from_json

RECORD = StageRecord("p" * 64, "rdm", "f" * 64, "file:///store", False, {}, {}, {})


@pytest.mark.parametrize("uri", ["http://rcg:secret@mlflow:5000", "postgresql://rcg:secret@db/mlflow"])
def test_no_file_holds_the_password_and_whoever_knows_it_goes_on(tmp_path: Path, uri: str) -> None:
    tracking = Tracking(uri, "experiment", None, tmp_path)
    request = leave_request(tracking, RECORD)
    text = request.read_text()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "secret" in path.read_text()]
    assert from_json(text, uri) == (tracking, RECORD)
    assert from_json(text, "http://other:secret@elsewhere")[0].uri == uri.replace("rcg:secret", "***")
