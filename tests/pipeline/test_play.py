"""`rcg play` as a person has it: the real server, a real browser, and what either asks of other hosts."""

import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file
from PIL import Image

from tests.support.bundles import make_cascade
from tests.support.chromium import BINARY, browser
from tests.support.cli import rcg
from tests.support.clicking import Visit, visit
from tests.support.folders import PX, draw_bars
from tests.support.playing import Playing, playing

pytestmark = pytest.mark.skipif(BINARY is None, reason="no Chromium here: apt-get install chromium")
TABS = "[...document.querySelectorAll('[role=tab]')].map(e => e.textContent.trim())"
SHOWN = "[...document.querySelectorAll('.grid-container img')].filter(e => e.offsetParent).map(e => e.src)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("played")
    for i, image in enumerate(draw_bars(2)[0]):
        Image.fromarray(image).save(root / f"{i}.png")
    (root / "note.png").write_text("this is text")
    return root


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Playing]:
    """Of a bundle with classes, an encoder and an upsampler, and without text."""
    with playing(make_cascade(folder, class_rdm=True).root, folder) as found:
        yield found


@pytest.fixture(scope="module")
def page(server: Playing) -> Iterator[Visit]:
    with browser() as chromium, visit(chromium, server.url) as found:
        yield found


def _pictures(page: Visit, n: int) -> list[bytes]:
    """The files behind the pictures that are shown, once there are n."""
    page.wait(f"{SHOWN}.length === {n}")
    files = []
    for address in page.run(SHOWN):
        with urllib.request.urlopen(address) as answer:
            files.append(answer.read())
    return files


def test_what_the_bundle_can_do_is_shown(page: Visit) -> None:
    page.wait(f"{TABS}.length > 1")
    assert page.run(TABS) == ["Sample", "Variations", "Between two", "Edit", "Upscale"]


def test_drawn_pictures_download_as_the_files_of_rcg_sample(
    page: Visit, server: Playing, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RCG_MLFLOW_URI", "off")
    page.tab("Sample")
    page.button("Draw")
    files = _pictures(page, 16)
    rcg("sample", "-n", "16", "--model", str(folder / "bundle"))
    assert files == [Path(f"samples/{i:04d}.png").read_bytes() for i in range(16)]


def test_a_file_that_is_no_picture_is_named_and_one_that_is_is_painted_over(page: Visit, folder: Path) -> None:
    page.tab("Edit")
    page.give(folder / "note.png")
    page.wait("document.body.innerText.includes('note.png cannot be used')")


def _mask(folder: Path, side: int) -> Path:
    """A layer of paint over the lower half."""
    paint = np.zeros((side, side, 4), np.uint8)
    paint[side // 2 :] = (220, 38, 38, 153)
    Image.fromarray(paint).save(folder / "paint.png")
    return folder / "paint.png"


def test_editing_goes_step_by_step_and_back(server: Playing, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RCG_MLFLOW_URI", "off")
    client = Client(server.url, verbose=False, download_files=folder / "client", analytics_enabled=False)
    painting, *_ = client.predict(handle_file(folder / "0.png"), api_name="/begin")
    with Image.open(painting["background"]) as shown:
        side = shown.width
    painted = painting | {"layers": [handle_file(_mask(folder, side))], "background": None, "composite": None}
    how = {"param_3": 2, "param_10": None}

    _, way, sources, made, told = client.predict(painted, **how, api_name="/fill")
    assert (len(way), len(made), told) == (2, 2, "step 1")
    image, mask = sources["value"]
    given = ("--image", image, "--mask", mask, "--model", str(folder / "bundle"))
    assert [rcg("verify", one["image"], *given).split()[0] for one in made] == ["identical:", "identical:"]
    for one in made:
        with Image.open(one["image"]) as picture:
            assert (np.asarray(picture)[: PX // 2] == draw_bars(2)[0][0][: PX // 2]).all()
    _, way, _, _, told = client.predict(painted, **how, param_4=1, api_name="/fill")
    assert (len(way), told) == (3, "step 2")
    _, way, _, back, told = client.predict(api_name="/undo")
    assert (len(way), told) == (2, "step 1")
    assert [Path(one["image"]).read_bytes() for one in back] == [Path(one["image"]).read_bytes() for one in made]
    with pytest.raises(Exception, match="covers nothing"):
        client.predict(painted | {"layers": []}, **how, api_name="/fill")
    client.close()


def test_a_page_that_is_closed_leaves_no_job(page: Visit, server: Playing) -> None:
    asks = {"param_1": 64, "param_3": 900}  # some minutes
    client = Client(server.url, verbose=False, download_files=False, analytics_enabled=False)
    job = client.submit(**asks, api_name="/sample")
    while not job.outputs():
        time.sleep(0.1)
    job.cancel()
    other = Client(server.url, verbose=False, download_files=False, analytics_enabled=False)
    shown, _ = other.predict(param_1=1, api_name="/sample")
    assert len(shown) == 1
    assert len(job.outputs()) < 200
    client.close()
    other.close()


def test_neither_page_nor_server_asks_anything_of_another_host(page: Visit, server: Playing) -> None:
    page.browser.listen(page.seen, page.url)
    assert len(page.seen.requests) > 20
    assert [url for url in page.seen.requests if not url.startswith((server.url, "blob:"))] == []
    assert server.log.read_text(), "the watch saw something"
    assert server.contacts == []
