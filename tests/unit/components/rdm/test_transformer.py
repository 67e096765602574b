"""The causal transformer: its arithmetic written out, what each token sees, its conditions, and files of others."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as tf

from components.conditions.ports import Ports
from components.diffusion.bases.config import GaussiansConfig
from components.errors import ConfigError, ShapeError, WeightsError
from components.generators.config import GeneratorData
from components.generators.diffusion import Diffusion
from components.generators.files import save_generator
from components.generators.sampling import DiffusionSampling
from components.interop.checkpoint import describe, export_tensors, import_tensors, read_checkpoint, write_checkpoint
from components.interop.layout import adopt
from components.interop.representations import LAYOUTS
from components.rdm import RdmConfig, load_rdm
from components.rng import BatchRng, RowRng
from components.weights_file import WeightsFile
from tests.support.folders import FolderArtifact, randomize
from tests.support.generators import PIXEL, D, M, Rows, S, build_prior

B = 3
BASE = GaussiansConfig.tiny().model_dump() | {"k": 3, "choice": {"by": "nearest", "field": "text"}}


def build(family: str, **changes: Any) -> Diffusion:
    made = build_prior(family, **changes)
    randomize(made)
    return made


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ports(component: Tensor | None = None, mask: Tensor | None = None) -> Ports:
    return Ports(vector=normal(B, D, seed=1), sequence=normal(B, M, S, seed=2), mask=mask, component=component)


def sinusoids(t: Tensor, width: int) -> Tensor:
    angle = t[:, None] * 10000 ** (-torch.arange(width // 2) / (width // 2))
    return torch.cat([angle.cos(), angle.sin()], 1)


def by_hand(file: dict[str, Tensor], family: str, x: Tensor, t: Tensor, given: Ports, heads: int) -> Tensor:
    """The published forward pass on the file's own tensors, for all of its 2i and 2i + 1 layers."""

    def linear(name: str, value: Tensor) -> Tensor:
        return tf.linear(value, file[f"{name}.weight"], file.get(f"{name}.bias"))

    def norm(name: str, value: Tensor) -> Tensor:
        parts = ("gamma", "beta") if f"{name}.gamma" in file else ("weight", "bias")
        return tf.layer_norm(value, value.shape[-1:], *(file[f"{name}.{part}"] for part in parts))

    def rms(name: str, value: Tensor) -> Tensor:
        return value / (value.norm(dim=-1, keepdim=True) * value.shape[-1] ** -0.5).clamp(min=1e-8) * file[name]

    def attend(prefix: str, value: Tensor, last: str) -> Tensor:
        n, width = value.shape[1:]
        q, k, v = (
            linear(f"{prefix}.to_{part}", value).view(len(value), n, heads, -1).transpose(1, 2) for part in "qkv"
        )
        logits = q @ k.transpose(2, 3) / math.sqrt(width // heads)
        logits = logits.masked_fill(~torch.ones(n, n, dtype=torch.bool).tril(), -torch.inf)
        mixed = (logits.softmax(-1) @ v).transpose(1, 2).reshape(len(value), n, width)
        return linear(f"{prefix}.{last}", mixed)

    assert given.sequence is not None
    assert given.vector is not None
    if family == "unclip":
        width = file["prd_embedding"].shape[2]
        time = linear("time_embedding.linear_2", tf.silu(linear("time_embedding.linear_1", sinusoids(t, width))))
        parts = [linear("embedding_proj", given.vector), time, linear("proj_in", x)]
        h = (
            torch.cat(
                [
                    linear("encoder_hidden_states_proj", given.sequence),
                    torch.stack(parts, 1),
                    file["prd_embedding"].expand(len(x), -1, -1),
                ],
                1,
            )
            + file["positional_embedding"]
        )
        for i in range(2):
            name = f"transformer_blocks.{i}"
            h = h + attend(f"{name}.attn1", norm(f"{name}.norm1", h), "to_out.0")
            h = h + linear(f"{name}.ff.net.2", tf.gelu(linear(f"{name}.ff.net.0.proj", norm(f"{name}.norm3", h))))
        return linear("proj_to_clip_embeddings", norm("norm_out", h)[:, -1])

    def vector(name: str, value: Tensor) -> Tensor:
        return linear(f"{name}.3", norm(f"{name}.2", tf.silu(linear(f"{name}.0", value))))

    def two(name: str, value: Tensor) -> Tensor:
        return linear(f"{name}.2", tf.silu(linear(f"{name}.0", value)))

    width = file["final_emb"].shape[2]
    rows = linear("t5_proj.4", norm("t5_proj.3", tf.silu(linear("t5_proj.1", norm("t5_proj.0", given.sequence)))))
    parts = [vector("clip_sentence_proj", given.vector), two("time_embed", sinusoids(t, width))]
    parts += [] if given.component is None else [two("pos_embed", sinusoids(given.component, width))]
    h = torch.cat([rows, torch.stack([*parts, vector("x_proj", x)], 1), file["final_emb"].expand(len(x), -1, -1)], 1)
    for i in range(2):
        a, b = f"transformer.layers.{2 * i}", f"transformer.layers.{2 * i + 1}"
        h = h + attend(f"{a}.1", rms(f"{a}.0.0.g", h), "to_out")
        value, gate = linear(f"{b}.1.net.0.proj", rms(f"{b}.0.0.g", h)).chunk(2, -1)
        h = h + linear(f"{b}.1.net.3", value * tf.gelu(gate))
    return two("out_proj", h[:, -1])


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "corgi": ("corgi", {}),
    "corgi, fixed": ("corgi", {"base": BASE}),
    "corgi, learned": ("corgi", {"base": BASE | {"learnable": True}}),
    "unclip": ("unclip", {}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_published_arithmetic_in_the_published_names(name: str) -> None:
    family, changes = CASES[name]
    made = build(family, **changes)
    file, t, x = export_tensors(family, made), torch.tensor([0, 30, 999]), normal(B, D)
    component = torch.tensor([0, 2, 1]) if changes else None
    found = made.net(x, made.net.time_vectors(t), ports(component))
    torch.testing.assert_close(found, by_hand(file, family, x, t, ports(component), 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_files_are_read_checked_and_written_back(name: str, tmp_path: Path) -> None:
    family, changes = CASES[name]
    file = export_tensors(family, build(family, **changes))
    write_checkpoint(tmp_path / "prior.pth", family, file)
    found = read_checkpoint(tmp_path / "prior.pth")
    assert found.kind == family
    facts = describe(family, found.tensors)
    assert facts.get("base", {}).get("learnable") == changes.get("base", {}).get("learnable")
    assert {"dim": D, "width": 16, "depth": 2, "mlp_ratio": 2.0}.items() <= facts.items()
    fresh = build_prior(family, **changes)
    kept = adopt(fresh, WeightsFile(uri=str(tmp_path / "prior.pth"), sha256=found.sha256), LAYOUTS, where="rdm.weights")
    again = export_tensors(family, fresh, kept)
    assert again.keys() == file.keys()
    assert all(torch.equal(again[key], t) for key, t in file.items())
    for key in file:
        with pytest.raises(WeightsError, match=r"missing|fixed Gaussians|lacks"):
            import_tensors(family, {other: t for other, t in file.items() if other != key}, fresh)
    with pytest.raises(WeightsError, match=r"not in the model: surplus"):
        import_tensors(family, {**file, "surplus": torch.ones(1)}, fresh)
    drawn = fresh.sample({"text": normal(2, D), "tokens": normal(2, M, S)}, DiffusionSampling.tiny(), RowRng([0, 1]))
    assert bool(drawn.isfinite().all())


def test_what_corgis_files_mean_for_the_base() -> None:
    learned = build("corgi", base=BASE | {"learnable": True, "kappa": 5.0})
    file = export_tensors("corgi", learned)
    assert {"vocab.mean.weight", "vocab.log_std.weight"} < file.keys()
    fresh = build_prior("corgi", base=BASE | {"learnable": True, "kappa": 5.0})
    import_tensors("corgi", file, fresh)
    frame = fresh.process.base.frame(torch.tensor([2]))
    torch.testing.assert_close(frame.loc[0], 0.01 * file["vocab.mean.weight"][2])
    torch.testing.assert_close(frame.scale[0], 5 * (0.01 * file["vocab.log_std.weight"][2]).exp())
    without = {name: t for name, t in file.items() if not name.startswith("vocab.")}
    with pytest.raises(WeightsError, match=r"trained with fixed Gaussians, which its file lacks(.|\n)*vocab\.mean"):
        import_tensors("corgi", without, fresh)
    mean, std = 3 + normal(D), normal(D).square() + 0.5
    file = export_tensors("unclip", build("unclip")) | {"clip_mean": mean[None], "clip_std": std[None]}
    karlo = build_prior("unclip")
    import_tensors("unclip", file, karlo)
    how = DiffusionSampling(kind="diffusion", sampler="ddim", steps=1, spacing="trailing", eta=0, guidance=0)
    told = {"text": normal(2, D), "tokens": normal(2, M, S)}
    drawn, white = karlo.sample(told, how, RowRng([0, 1])), RowRng([0, 1]).normal(D)
    expected = by_hand(file, "unclip", white, torch.tensor([999, 999]), Ports(told["text"], told["tokens"]), 2)
    torch.testing.assert_close(drawn, mean + std * expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["corgi", "unclip"])
def test_hidden_rows_change_nothing_and_a_token_sees_none_after_it(family: str) -> None:
    made = build(family)
    mask = torch.tensor([[True] * 5, [True, False, True, False, False], [False] * 5])
    given = ports(mask=mask)
    assert given.sequence is not None
    other = Ports(given.vector, torch.where(mask[:, :, None], given.sequence, 7.0), mask)
    t, x = torch.tensor([0, 30, 999]), normal(B, D)
    first, second = (made.net(x, made.net.time_vectors(t), one) for one in (given, other))
    torch.testing.assert_close(first, second)
    assert bool(first.isfinite().all())
    longer = Ports(given.vector, given.sequence[:, :3], mask[:, :3])  # what is cut off of rows 1 and 2 was hidden
    torch.testing.assert_close(made.net(x, made.net.time_vectors(t), longer)[1:], first[1:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made.net(x, made.net.time_vectors(t), made.net.prepare(given)), first)
    with pytest.raises(ShapeError, match=r"too long(.|\n)*at most 5"):
        made.net(x, made.net.time_vectors(t), Ports(given.vector, normal(B, 6, S)))


@pytest.mark.parametrize("conditions", [True, False])
@pytest.mark.parametrize("family", ["corgi", "unclip"])
def test_it_trains_is_guided_saved_and_loaded(family: str, conditions: bool, tmp_path: Path) -> None:
    base = BASE if conditions else BASE | {"choice": {"by": "frequencies"}}
    made = build_prior(family, base=base, **({} if conditions else {"conditions": []}))
    z, text, tokens = normal(20, D), normal(20, D, seed=1), normal(20, M, S, seed=2)
    made.fit(Rows({"representation": z, "text": text, "tokens": tokens}), 0)
    batch = {"representation": z, "text": text, "tokens": tokens} if conditions else {"representation": z}
    made.loss(batch, BatchRng(0, 20)).mean().backward()
    assert all(p.grad is not None for p in made.parameters())
    save_generator(made, FolderArtifact(tmp_path))
    loaded = load_rdm(FolderArtifact(tmp_path))
    guidance = 2.0 if conditions else 0.0
    how = DiffusionSampling(kind="diffusion", sampler="ddim", steps=3, spacing="trailing", eta=1, guidance=guidance)
    told = {name: rows[:4] for name, rows in batch.items() if name != "representation"}
    drawn = loaded.sample(told, how, RowRng(range(4)))
    assert torch.equal(drawn, made.eval().sample(told, how, RowRng(range(4))))
    alone = loaded.sample({name: rows[1:2] for name, rows in told.items()}, how, RowRng([1]))
    torch.testing.assert_close(alone[0], drawn[1], rtol=1e-4, atol=1e-5)


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match=r"tokens that is fed as it is(.|\n)*\(sequence_dim\) to 4"):
        build_prior("corgi", sequence_dim=6)
    with pytest.raises(WeightsError, match="only a transformer that reads a text"):
        export_tensors("corgi", RdmConfig.tiny().build(GeneratorData(target=PIXEL, dim=8, classes=None)))
    with pytest.raises(ValueError, match="heads is 3, which does not divide width 16"):
        build_prior("corgi", heads=3)
