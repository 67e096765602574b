"""Principal axes of representations: the formula, odd cases, and the way through the encoder's files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from components.encoders.base import CONFIG, REDUCTION, WEIGHTS, constant_rows, load_encoder, saved_config
from components.encoders.config import MoCoV3Config, PcaConfig, width_of
from components.encoders.reduction import fitted
from components.errors import ConfigError, WeightsError
from components.weights import save_weights
from tests.support.folders import FolderArtifact

PCA = PcaConfig(kind="pca", dim=3, whiten=True)


def _rows(n: int = 200, d: int = 8, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g) @ torch.diag(torch.arange(d, 0, -1).float()) + 5


def test_axes_are_those_of_a_singular_value_decomposition() -> None:
    z = _rows()
    reduction, share = fitted(z, PCA)
    centered = z.double().numpy() - z.double().numpy().mean(0)
    _, s, vt = np.linalg.svd(centered, full_matrices=False)
    signs = np.sign(vt[np.arange(3), np.abs(vt[:3]).argmax(1)])
    expected = centered @ (vt[:3] * signs[:, None]).T / (s[:3] / np.sqrt(len(z) - 1))
    np.testing.assert_allclose(reduction(z).numpy(), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(reduction(z).T.cov(), torch.eye(3), rtol=0, atol=1e-4)
    assert share == pytest.approx((s[:3] ** 2).sum() / (s**2).sum())


def test_without_whitening_axes_keep_their_shares_of_a_mean_variance_of_one() -> None:
    w = fitted(_rows(), PCA.model_copy(update={"whiten": False}))[0](_rows())
    assert float(w.var(0).mean()) == pytest.approx(1, abs=1e-4)
    assert w.var(0)[0] > 1.15
    assert w.var(0)[2] < 0.85


def test_too_few_axes_are_told() -> None:
    with pytest.raises(ConfigError, match=r"2 axes in 3 training pictures of 8(?s:.)*at most 2"):
        fitted(_rows(3), PCA)
    flat = _rows()
    flat[:, 2:] = 0
    with pytest.raises(ConfigError, match="2 axes in 200"):
        fitted(flat, PCA)


def test_a_reduced_encoder_is_saved_and_loaded(tmp_path: Path) -> None:
    config = MoCoV3Config.tiny().model_copy(update={"reduce": PCA})
    encoder = config.build()
    images = torch.rand(30, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    z = encoder(images)
    encoder.reduction, _ = fitted(z, PCA)
    assert encoder.dim == width_of(config) == 3 == encoder(images).shape[1]
    assert encoder(images[:0]).shape == (0, 3)
    torch.testing.assert_close(encoder(images), encoder.reduction(z))
    save_weights(tmp_path / WEIGHTS, encoder.network.state_dict())
    (tmp_path / CONFIG).write_text(json.dumps(saved_config(config)))
    with pytest.raises(WeightsError, match=REDUCTION):
        load_encoder(FolderArtifact(tmp_path))
    save_weights(tmp_path / REDUCTION, encoder.reduction.state_dict())
    loaded = load_encoder(FolderArtifact(tmp_path))
    assert torch.equal(loaded(images), encoder(images))
    with torch.no_grad():
        for parameter in loaded.network.head.parameters():
            parameter.zero_()
    assert len(constant_rows(loaded(images))) == 30


def test_a_config_without_it_is_written_as_ever() -> None:
    assert "reduce" not in saved_config(MoCoV3Config.tiny())
    with pytest.raises(ValidationError, match="dim"):
        PcaConfig(kind="pca", dim=0, whiten=True)
