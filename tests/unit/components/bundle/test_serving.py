"""Requests to a model server: which images they get, and what is wrong with bad ones."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.bundle.bundle import Bundle
from components.bundle.integrity import bundle_digest
from components.bundle.provenance import read_provenance
from components.bundle.request import Picture, Request
from components.bundle.serving import Predictor, request_params
from components.errors import ConfigError, DataError
from components.images.pictures import png_bytes, to_uint8
from tests.support.bundles import make_bundle
from tests.support.folders import DIM, draw_bars


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(Bundle.load(make_bundle(tmp_path_factory.mktemp("rcg")).root))


def _pixels(answers: list[dict[str, object]]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(io.BytesIO(base64.b64decode(str(a["image"]))))) for a in answers])


@pytest.mark.parametrize("requests", [[], [{}], [{"class": None, "image": float("nan"), "representation": None}]])
def test_plain_request_equals_sample(predictor: Predictor, requests: list[dict[str, object]]) -> None:
    answers = predictor.predict(requests, {"n": 4, "seed": 3})
    assert (_pixels(answers) == to_uint8(predictor.bundle.sample(Request(n=4, seed=3)))).all()
    assert [(a["request"], a["index"]) for a in answers] == [(0, i) for i in range(4)]


def test_requests_go_on_counting(predictor: Predictor) -> None:
    answers = predictor.predict([{}] * 4, {"n": 1, "seed": 3})
    assert (_pixels(answers) == to_uint8(predictor.bundle.sample(Request(n=4, seed=3)))).all()
    assert [(a["request"], a["index"]) for a in answers] == [(i, i) for i in range(4)]
    picture = draw_bars(1)[0][0]
    mixed = predictor.predict([{}, {"image": base64.b64encode(png_bytes(picture)).decode()}], {"n": 2, "seed": 3})
    alike = predictor.bundle.sample(Request(n=2, seed=3, first=2, like=Picture(png_bytes(picture))))
    assert (_pixels(mixed)[2:] == to_uint8(alike)).all()
    assert [(a["request"], a["index"]) for a in mixed] == [(0, 0), (0, 1), (1, 2), (1, 3)]


def test_every_picture_says_where_it_came_from(predictor: Predictor) -> None:
    answers = predictor.predict([{}, {"representation": np.linspace(-1, 2, DIM)}], {"n": 2, "seed": 3})
    claims = [read_provenance(base64.b64decode(str(a["image"]))) for a in answers]
    assert {claim.bundle for claim in claims} == {bundle_digest(predictor.bundle.folder)}
    assert [(c.seed, c.index, c.first, c.n) for c in claims] == [(3, 0, 0, 2), (3, 1, 0, 2), (3, 2, 2, 2), (3, 3, 2, 2)]
    assert [sorted(claim.condition) for claim in claims] == [[], [], ["representation"], ["representation"]]


def test_representation_is_fed_as_it_is(predictor: Predictor) -> None:
    z = np.linspace(-1, 2, DIM)
    answers = predictor.predict([{"representation": z}], {"n": 2, "seed": 1})
    expected = predictor.bundle.sample(Request(n=2, seed=1, representation=tuple(z)))
    assert (_pixels(answers) == to_uint8(expected)).all()


def test_defaults_are_the_bundles(predictor: Predictor) -> None:
    sampling = predictor.bundle.card.sampling
    defaults = {p["name"]: p["default"] for p in request_params(sampling)}
    assert defaults == {"n": 1, "seed": sampling.seed, "guidance": sampling.pixels.guidance, "steps": 4}
    assert predictor.predict([], defaults) == predictor.predict([], {})


@pytest.mark.parametrize(
    ("request_", "params", "message"),
    [
        ({"klass": "bar"}, {}, "unknown key"),
        ({"image": "aGk=", "class": "bar"}, {}, "exclude each other"),
        ({}, {"n": 0}, "out of range"),
        ({}, {"n": 10**6}, "out of range"),
        ({"class": "bar"}, {}, "does not take a class"),
        ({}, {"steps": 0}, "steps"),
        ({}, {"steps": 10**12}, "steps"),
        ({}, {"seed": 2**70}, "seed"),
        ({}, {"guidance": float("nan")}, "guidance"),
        ({"representation": [float("inf")] * DIM}, {}, "finite"),
        ({"representation": "x"}, {}, "no list of numbers"),
        ({"representation": 3}, {}, "no list of numbers"),
        ({}, {"n": float("nan")}, "n is no number"),
        ({}, {"seed": None}, "seed is no number"),
    ],
)
def test_wrong_requests_are_named(
    predictor: Predictor, request_: dict[str, object], params: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        predictor.predict([request_], params)


def test_unreadable_pictures_are_named(predictor: Predictor) -> None:
    with pytest.raises(DataError, match="not base64"):
        predictor.predict([{"image": "no base64!"}], {})
    with pytest.raises(DataError, match="not a picture"):
        predictor.predict([{"image": "aGVsbG8="}], {})


def test_load_reads_a_folder(tmp_path: Path) -> None:
    assert len(Predictor.load(make_bundle(tmp_path).root).predict([], {"n": 2})) == 2
