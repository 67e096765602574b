from pathlib import Path

import pytest

from components.files import replacing, write_whole


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "file.txt"
    write_whole(path, "one")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half of t")
            raise KeyError

    with pytest.raises(KeyError):
        write_half()
    assert path.read_text() == "one"
    with replacing(path) as temporary:
        assert (temporary.parent, temporary.suffix) == (path.parent, ".txt")
        temporary.write_text("two")
        assert path.read_text() == "one"
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]
