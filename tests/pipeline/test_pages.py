"""The pages in a real browser: no complaint, no request, no sideways scrolling on a phone, light and dark differ."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.commands.report import write_report
from flows.lineage.trace import lineage_of
from flows.pages.lineage import write_html
from tests.support.chromium import BINARY, Chromium, browser
from tests.support.made_project import MadeProject
from tests.support.shown import evaluation_page

pytestmark = pytest.mark.skipif(BINARY is None, reason="no Chromium here: apt-get install chromium")
OPEN_ALL = "document.querySelectorAll('details').forEach(d => d.open = true)"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.chdir(root)
        patch.setenv("RCG_MLFLOW_URI", "off")
        project = MadeProject(root, versions=3).project
        write_report(project, root / "report.html")
        write_html(lineage_of("artifacts/bundle", project), root / "lineage.html")
    (root / "evaluate.html").write_text(evaluation_page())
    return [root / f"{name}.html" for name in ("report", "lineage", "evaluate")]


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_offline_silent_and_as_wide_as_the_window(
    chromium: Chromium, pages: list[Path], width: int, dark: bool
) -> None:
    for path in pages:
        seen = chromium.look(path, width=width, dark=dark, script=OPEN_ALL)
        assert seen.complaints == []
        assert seen.requests == []
        assert seen.scroll_width <= width, "nothing but tables scrolls sideways, and those inside their own box"


def test_light_and_dark_are_readable(chromium: Chromium, pages: list[Path]) -> None:
    """Contrast of text to ground after WCAG 2.1: at least 4.5, also of what is written softly."""
    script = """(() => {
      const rgb = c => c.match(/[\\d.]+/g).slice(0, 3).map(Number);
      const lin = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
      const lum = c => rgb(c).map(lin).reduce((s, v, i) => s + v * [.2126, .7152, .0722][i], 0);
      const ground = lum(getComputedStyle(document.body).backgroundColor);
      const ratio = c => { const [a, b] = [lum(c), ground].sort((x, y) => y - x); return (a + .05) / (b + .05); };
      const worst = [...document.querySelectorAll('p, h1, h2, h3, td, th, figcaption, a, summary span, .badge')]
        .map(e => ratio(getComputedStyle(e).color));
      return [getComputedStyle(document.body).backgroundColor, Math.min(...worst)];
    })()"""
    for path in pages:
        light, dark = (chromium.look(path, width=1280, dark=is_dark, script=script).values for is_dark in (False, True))
        assert light[0] != dark[0]
        assert min(light[1], dark[1]) >= 4.5


def test_pictures_are_described_and_tables_headed(chromium: Chromium, pages: list[Path]) -> None:
    script = """[
      [...document.images].filter(i => !i.complete || !i.naturalWidth || !i.alt).length,
      [...document.querySelectorAll('table')].filter(t => !t.caption || !t.querySelector('th[scope]')).length,
      [...document.querySelectorAll('a[href^="#"]')].filter(a =>
        !document.getElementById(a.getAttribute('href').slice(1))).length,
      (ids => ids.length - new Set(ids).size)([...document.querySelectorAll('[id]')].map(e => e.id)),
      [...document.querySelectorAll('h1')].length,
    ]"""
    for path in pages:
        assert chromium.look(path, width=1280, script=script).values == [0, 0, 0, 0, 1]


def test_a_box_of_the_graph_opens_what_it_stands_for(chromium: Chromium, pages: list[Path]) -> None:
    script = "document.querySelector('.graph a[href=\"#rdm\"]').dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    opened = "document.getElementById('rdm').parentElement.open"
    for path in pages[:2]:
        assert chromium.look(path, width=1280, script=f"{script}; {opened}").values is True


def test_the_watcher_would_notice(chromium: Chromium, tmp_path: Path) -> None:
    """A page that does ask and does complain is seen to."""
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='http://127.0.0.1:9/x.png'><div style='width:3000px'>.</div><script>oops()</script>")
    seen = chromium.look(bad, width=360)
    assert seen.requests == ["http://127.0.0.1:9/x.png"]
    assert seen.complaints
    assert seen.scroll_width > 360
