"""Shapes in the signatures of components are checked at run time, in the process of the tests."""

import jaxtyping
import pytest

from tests.support import shapes

jaxtyping.install_import_hook("components", f"{shapes.__name__}.{shapes.check_arrays.__name__}")


@pytest.fixture
def wrong_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong shapes reach the components, whose own checks speak to a person."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
