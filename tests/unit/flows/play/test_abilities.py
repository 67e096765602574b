"""What the page shows is what the bundle answers."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from components.bundle.bundle import Bundle
from components.bundle.request import Picture, Request, Upscale
from components.errors import ConfigError
from components.images.pictures import png_bytes
from flows.play.abilities import Abilities
from tests.support.bundles import make_bundle, make_cascade
from tests.support.folders import draw_bars

RCG: dict[str, Any] = {
    "plain": True,
    "classes": (),
    "text": False,
    "pictures": True,
    "free": True,
    "upscale": False,
    "guidance": True,
    "rdm_guidance": False,
    "guide": False,
}


def _answers(bundle: Bundle, request: Request) -> bool:
    try:
        bundle.system.sampler(request)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize(
    ("condition", "changes"),
    [
        ("representation", {}),
        ("none", {"pictures": False, "free": False, "guidance": False}),
        ("class", {"pictures": False, "free": False, "classes": ("bar", "post")}),
    ],
)
def test_abilities_are_those_that_the_system_answers(tmp_path: Path, condition: str, changes: dict[str, Any]) -> None:
    bundle = Bundle.load(make_bundle(tmp_path, condition).root)
    can = Abilities.of(bundle)
    assert asdict(can) == RCG | changes
    picture = Picture(png_bytes(draw_bars(1)[0][0]))
    assert _answers(bundle, Request(like=picture)) == can.pictures
    assert _answers(bundle, Request(class_name="bar")) == bool(can.classes)
    assert _answers(bundle, Request(text=("a bar",))) == can.text
    assert _answers(bundle, Request(upscale=Upscale())) == can.upscale
    assert bundle.sample(Request()).shape[0] == can.plain


def test_an_upsampler_a_class_of_the_rdm_and_no_encoder(tmp_path: Path) -> None:
    cascade = Abilities.of(Bundle.load(make_cascade(tmp_path / "a", class_rdm=True).root))
    assert asdict(cascade) == RCG | {"upscale": True, "classes": ("bar", "post"), "rdm_guidance": cascade.rdm_guidance}
    blind = Abilities.of(Bundle.load(make_bundle(tmp_path / "b", with_encoder=False).root))
    assert asdict(blind) == RCG | {"pictures": False}
