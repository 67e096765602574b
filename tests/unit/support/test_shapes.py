import jaxtyping
import pytest
import torch

from components.generators.config import MaskConfig
from components.generators.masked import mask_ratio
from tests.support.shapes import check_arrays


def test_a_wrong_shape_is_an_error_in_every_test() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'u'"):
        mask_ratio(MaskConfig(mean=0.55, std=0.25, least=0.5), torch.zeros(2, 2))


def test_what_a_function_returns_is_checked() -> None:
    @jaxtyping.jaxtyped(typechecker=check_arrays)
    def flat(x: jaxtyping.Float[torch.Tensor, "b d"]) -> jaxtyping.Float[torch.Tensor, " b"]:
        return x.flatten()

    assert flat(torch.zeros(3, 1)).shape == (3,)
    with pytest.raises(jaxtyping.TypeCheckError, match="return"):
        flat(torch.zeros(3, 2))


def test_one_of_several_shapes_may_be_none() -> None:
    @jaxtyping.jaxtyped(typechecker=check_arrays)
    def first(x: jaxtyping.Float[torch.Tensor, " d"] | None) -> float:
        return 0.0 if x is None else float(x[0])

    assert first(None) == 0.0
    assert first(torch.ones(2)) == 1.0
    with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'x'"):
        first(torch.ones(2, 2))
