"""The page's pictures are the command line's; a job that is left ends."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.bundle.bundle import Bundle
from components.bundle.request import Request
from components.errors import ConfigError
from flows.execution.project import Project
from flows.lineage.sampling import write_samples
from flows.play.drawing import Artist
from tests.support.bundles import make_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("rcg")).root


@pytest.fixture
def artist(folder: Path) -> Iterator[Artist]:
    artist = Artist(Bundle.load(folder))
    yield artist
    artist.close()


def test_pictures_are_the_files_of_rcg_sample(
    artist: Artist, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    request = Request(n=5, seed=7, steps=3)
    write_samples(request, Project.here(), model=str(folder), out=Path("drawn"))
    pictures = artist.drawn(request)
    assert [picture.name for picture in pictures] == [f"seed7-{i:04d}.png" for i in range(5)]
    assert [picture.data for picture in pictures] == [Path(f"drawn/{i:04d}.png").read_bytes() for i in range(5)]


def test_progress_ends_with_all_pictures_and_errors_come_out(artist: Artist) -> None:
    seen = list(artist.draw(Request(n=4), every_s=0.001))
    assert [len(progress.pictures) for progress in seen] == sorted(len(progress.pictures) for progress in seen)
    assert (len(seen[-1].pictures), seen[-1].n) == (4, 4)
    with pytest.raises(ConfigError, match="does not take a class"):
        artist.drawn(Request(class_name="cat"))
    assert len(artist.drawn(Request())) == 1


def test_a_job_that_is_left_ends_inside_the_network_and_those_behind_it_never_begin(artist: Artist) -> None:
    entered, go_on = threading.Event(), threading.Event()
    calls: list[str] = []

    def slow(_module: Any, _inputs: Any) -> None:
        calls.append("pixels")
        entered.set()
        assert go_on.wait(20)

    hook = artist.bundle.system.pixels.net.register_forward_pre_hook(slow)
    first, second = artist.draw(Request(n=3, steps=4), every_s=0.001), artist.draw(Request(n=9), every_s=0.001)
    next(first)
    assert entered.wait(20)
    next(second)
    second.close()
    first.close()
    go_on.set()
    hook.remove()
    assert len(artist.drawn(Request(n=2))) == 2, "the next one has its turn"
    assert calls == ["pixels"], "the first of four steps, and none of the second request"
