"""Views: seeded by content, view 0 plain."""

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from components.images.config import ViewRecipe
from components.images.decode import square
from components.images.views import PLAIN, View, random_views, render

RECIPE = ViewRecipe(seed=3, n_views=4, crop_area=(0.25, 0.81), flip_prob=0.5)


def _noise(w: int, h: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (h, w, 3)).astype(np.uint8))


def test_views_depend_on_the_picture_alone() -> None:
    names = [f"{i:064x}" for i in range(50)]
    together = random_views(RECIPE, names)
    assert together == [random_views(RECIPE, [name])[0] for name in names]
    assert len({view for views in together for view in views[1:]}) == 150
    assert random_views(RECIPE.model_copy(update={"seed": 4}), names)[0][1] != together[0][1]


def test_more_views_begin_with_the_same_ones() -> None:
    longer = random_views(RECIPE.model_copy(update={"n_views": 6}), ["a" * 64])[0]
    assert longer[:4] == random_views(RECIPE, ["a" * 64])[0]


def test_random_views_keep_to_the_recipe() -> None:
    views = [view for views in random_views(RECIPE, [str(i) for i in range(600)]) for view in views[1:]]
    sides = np.array([view.side for view in views])
    assert 0.5 <= sides.min() < 0.53
    assert 0.88 < sides.max() <= 0.9
    assert (sides**2).mean() == pytest.approx((0.25 + 0.81) / 2, abs=0.02)  # uniform in area
    assert all(0 <= v.left <= 1 - v.side + 1e-9 and 0 <= v.top <= 1 - v.side + 1e-9 for v in views)
    assert np.mean([view.flipped for view in views]) == pytest.approx(0.5, abs=0.05)


def test_one_view_is_the_plain_one() -> None:
    assert random_views(ViewRecipe(seed=0, n_views=1, crop_area=(1, 1), flip_prob=0), ["a", "b"]) == [[PLAIN], [PLAIN]]
    assert random_views(RECIPE, []) == []


def test_the_plain_view_is_what_an_index_loads() -> None:
    for size in ((13, 20), (20, 13), (9, 9)):
        image = _noise(*size)
        assert (render(image, PLAIN, 7) == square(image, 7)).all()


def test_render_cuts_and_mirrors() -> None:
    image = _noise(20, 16)
    half = render(
        image, View(0.5, 0.25, 0.5, False), 8
    )  # square: columns 2..18; the window: columns 10..18, rows 4..12
    assert (half == np.asarray(image)[4:12, 10:18]).all()
    assert (render(image, View(0.5, 0.25, 0.5, True), 8) == half[:, ::-1]).all()


@pytest.mark.parametrize(
    "change", [{"crop_area": (0, 1)}, {"crop_area": (0.9, 0.5)}, {"crop_area": (0.5, 1.5)}, {"flip_prob": 1.5}]
)
def test_impossible_recipes_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ViewRecipe.model_validate(RECIPE.model_dump() | change)


def test_equal_views_are_refused() -> None:
    with pytest.raises(ValidationError, match="set n_views: 1"):
        ViewRecipe(seed=0, n_views=2, crop_area=(1, 1), flip_prob=0)
