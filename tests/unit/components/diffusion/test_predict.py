"""Conversions between what networks predict, checked on numbers made from the definition."""

import pytest
import torch

from components.diffusion.predict import (
    Prediction,
    eps_from_x0,
    min_snr_weight,
    noised,
    target_of,
    x0_from,
)

RNG = torch.Generator().manual_seed(0)
X0, EPS = torch.randn(2, 5, 3, generator=RNG, dtype=torch.float64)
LEVELS = [1e-4, 0.1, 0.5, 0.9, 0.9999]
AB = torch.tensor(LEVELS, dtype=torch.float64)[:, None]
X_T = torch.stack([a**0.5 * x + (1 - a) ** 0.5 * e for a, x, e in zip(LEVELS, X0, EPS, strict=True)])


def test_noised_is_the_definition() -> None:
    torch.testing.assert_close(noised(X0, EPS, AB), X_T)


@pytest.mark.parametrize("kind", ["eps", "v", "x0"])
def test_the_ideal_output_gives_back_the_clean_sample(kind: Prediction) -> None:
    output = target_of(kind, X0, EPS, AB)
    torch.testing.assert_close(x0_from(kind, X_T, output, AB), X0, rtol=1e-8, atol=1e-8)


def test_eps_comes_back_from_x0() -> None:
    torch.testing.assert_close(eps_from_x0(X_T, X0, AB), EPS, rtol=1e-6, atol=1e-8)


def test_velocity_is_the_derivative_of_the_arc() -> None:
    """With x_t = cos(p) x0 + sin(p) eps, v = dx_t/dp (2202.00512, app. D)."""
    angle = torch.acos(AB.sqrt())
    step = 1e-6
    ahead = torch.cos(angle + step) * X0 + torch.sin(angle + step) * EPS
    behind = torch.cos(angle - step) * X0 + torch.sin(angle - step) * EPS
    torch.testing.assert_close(target_of("v", X0, EPS, AB), (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["eps", "v", "x0"])
def test_min_snr_weighs_every_prediction_as_the_same_loss_on_x0(kind: Prediction) -> None:
    wrong = target_of(kind, X0, EPS, AB) + 0.01
    snr = (AB / (1 - AB))[:, 0]
    on_x0 = (x0_from(kind, X_T, wrong, AB) - X0).square().mean(1) * snr.clamp(max=5)
    weighted = min_snr_weight(kind, AB[:, 0], 5.0) * (wrong - target_of(kind, X0, EPS, AB)).square().mean(1)
    torch.testing.assert_close(weighted, on_x0, rtol=1e-6, atol=0)
