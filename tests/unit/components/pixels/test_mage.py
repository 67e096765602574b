"""MAGE: its masks, its arithmetic with and without a sequence, and its decoding."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from components.conditions.ports import Ports
from components.errors import ConfigError, ShapeError
from components.generators.config import GeneratorData, MaskConfig
from components.generators.masked import MaskedTokens, mask_ratio, masked_counts
from components.generators.sampling import MaskedSampling
from components.nn.dropout import RowDropout
from components.nn.vit import seeded_init
from components.pixels.mage import MageConfig
from components.pixels.mage_network import MageTransformer
from components.rng import BatchRng, image_rng
from components.target import TargetSpec
from tests.support.folders import randomize

SIDE, N, K, DIM = 4, 16, 8, 6
DATA = GeneratorData(
    target=TargetSpec(space="tokens", shape=(SIDE, SIDE), dtype="int32", n_codes=K, image_px=8), dim=DIM, classes=None
)
HOW = MaskedSampling(kind="masked", steps=6, temperature=1.0, guidance=0.0)


def mage(**values: object) -> MaskedTokens:
    config = MageConfig.tiny().model_copy(update={"drop_prob": 0.0, **values})
    with seeded_init(0):
        return config.build(DATA)


def rows(n: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(K, (n, SIDE, SIDE), generator=generator, dtype=torch.int32)
    return {"target": ids, "representation": torch.randn(n, DIM, generator=generator)}


def test_mask_ratio_is_a_truncated_normal() -> None:
    """Against rejection sampling, by quantiles."""
    config = MaskConfig(mean=0.6, std=0.3, least=0.4)
    normal = 0.6 + 0.3 * torch.randn(400_000, generator=torch.Generator().manual_seed(0)).double()
    kept = normal[(normal >= 0.4) & (normal <= 1)].sort().values
    for q in (0.0, 0.1, 0.5, 0.9, 0.999):
        ours = float(mask_ratio(config, torch.tensor([q])))
        assert ours == pytest.approx(float(kept[int(q * len(kept))]), abs=0.004)


def test_masks_of_a_batch() -> None:
    model = mage()
    for seed in range(20):
        masked, kept = model._mask(BatchRng(seed, 5))
        counts = masked.sum(1)
        assert counts.unique().numel() == 1, "one ratio for the batch"
        assert 8 <= int(counts[0]) <= N
        assert kept.shape == (5, N // 2)
        unseen = torch.ones_like(masked).scatter(1, kept, False)
        assert bool((masked | ~unseen).all()), "what the encoder does not see is masked"


def naive_logits(model: MaskedTokens, ids: Tensor, masked: Tensor, kept: list[int], condition: Tensor) -> Tensor:
    """One image, position by position, straight from the description."""
    net, width = model.transformer, model.config.width
    table, norm = net.token_emb, net.token_emb.LayerNorm
    seen = [condition]
    for position in kept:
        word = K if bool(masked[position]) else int(ids[position])
        vector = table.word_embeddings.weight[word] + table.position_embeddings.weight[position + 1]
        vector = (vector - vector.mean()) / (vector.var(unbiased=False) + 1e-6).sqrt()
        seen.append(vector * norm.weight + norm.bias)
    x = torch.stack(seen)[None]
    for block in net.blocks:
        x = block(x)
    x = net.decoder_embed(net.norm(x))[0]
    full = [x[0]]
    for position in range(N):
        visible = position in kept and not bool(masked[position])
        full.append(x[1 + kept.index(position)] if visible else x[0])
    y = torch.stack(full)[None] + net.decoder_pos_embed_learned
    for block in net.decoder_blocks:
        y = block(y)
    y = net.decoder_norm(y)[0, 1:]
    h = y @ net.mlm_layer.fc.weight.T + net.mlm_layer.fc.bias
    h = h * 0.5 * (1 + torch.erf(h / math.sqrt(2)))
    h = (h - h.mean(1, keepdim=True)) / (h.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    assert h.shape == (N, width)
    return h @ table.word_embeddings.weight[:K].T + net.mlm_layer.bias[0, 0]


def test_loss_is_that_of_the_description() -> None:
    model = mage(label_smoothing=0.1)
    with torch.no_grad():
        model.transformer.mlm_layer.bias.normal_(generator=torch.Generator().manual_seed(0))
        batch, rng = rows(3), BatchRng(7, 3)
        losses = model.loss(batch, rng)
        again = BatchRng(7, 3)
        masked, kept = model._mask(again)
        condition = model.conditioner.training_ports(batch, again).vector
        assert condition is not None
        for i in range(3):
            ids = batch["target"][i].flatten()
            log_p = naive_logits(model, ids, masked[i], kept[i].tolist(), condition[i]).log_softmax(1)
            each = [-0.9 * log_p[p, ids[p]] - 0.1 * log_p[p].mean() for p in range(N) if bool(masked[i, p])]
            torch.testing.assert_close(losses[i], torch.stack(each).mean(), rtol=1e-4, atol=1e-5)


def test_head_sends_no_gradient_to_the_words() -> None:
    model = mage()
    x = torch.randn(1, N, 8, generator=torch.Generator().manual_seed(0))
    words = model.transformer.token_emb.word_embeddings.weight
    model.transformer.mlm_layer(x, words).sum().backward()
    assert words.grad is None
    assert model.transformer.mlm_layer.fc.weight.grad is not None


def test_dropout_acts_in_training_only_and_repeats() -> None:
    model, batch = mage(drop_prob=0.5), rows(4)
    trained, again = (model.train().loss(batch, BatchRng(1, 4)) for _ in range(2))
    assert torch.equal(trained, again)
    assert not torch.allclose(trained, model.eval().loss(batch, BatchRng(1, 4)))
    without = mage(drop_prob=0.0)
    assert torch.equal(without.train().loss(batch, BatchRng(1, 4)), without.eval().loss(batch, BatchRng(1, 4)))


@pytest.mark.parametrize("m", [1, 5, N])
def test_logits_of_the_hidden_tokens_are_those_of_the_whole_pass(m: int) -> None:
    net = mage().transformer
    generator = torch.Generator().manual_seed(m)
    ids = torch.randint(K, (3, N), generator=generator)
    hidden = torch.rand(3, N, generator=generator).argsort(1)[:, :m]
    ports = Ports(vector=torch.randn(3, net.vector_width, generator=generator))
    masked = torch.zeros(3, N, dtype=torch.bool).scatter(1, hidden, True)
    whole = net(ids, masked, ports)
    expected = whole.gather(1, hidden[:, :, None].expand(-1, -1, whole.shape[2]))
    torch.testing.assert_close(net.unknown(ids, hidden, ports), expected, rtol=1e-5, atol=1e-6)


SEEN = torch.tensor([[True, True, True], [True, False, True], [False, False, False]])


def sequenced(n: int, *, mask: Tensor | None = None) -> tuple[MageTransformer, Tensor, Tensor, Ports]:
    """A transformer, tokens of three images, the n that are hidden, and a vector and a sequence of length 3."""
    model = mage()
    randomize(model)
    net, generator = model.transformer, torch.Generator().manual_seed(n)
    ids = torch.randint(K, (3, N), generator=generator)
    hidden = torch.rand(3, N, generator=generator).argsort(1)[:, :n]
    vector, sequence = torch.randn(3, 8, generator=generator), torch.randn(3, 3, 8, generator=generator)
    return net, ids, hidden, Ports(vector=vector, sequence=sequence, mask=mask)


def whole_pass(net: MageTransformer, ids: Tensor, hidden: Tensor, ports: Ports) -> Tensor:
    masked = torch.zeros(3, N, dtype=torch.bool).scatter(1, hidden, True)
    out: Tensor = net(ids, masked, ports)
    return out


@pytest.mark.parametrize("mask", [None, SEEN], ids=["all", "masked"])
@pytest.mark.parametrize("n", [1, 5, N])
def test_hidden_tokens_with_a_sequence_are_those_of_the_whole_pass(n: int, mask: Tensor | None) -> None:
    net, ids, hidden, ports = sequenced(n, mask=mask)
    whole = whole_pass(net, ids, hidden, ports)
    assert whole.shape == (3, N, K)
    expected = whole.gather(1, hidden[:, :, None].expand(-1, -1, K))
    torch.testing.assert_close(net.unknown(ids, hidden, ports), expected, rtol=1e-4, atol=1e-5)


def test_the_sequence_is_read_where_the_mask_lets_it() -> None:
    net, ids, hidden, ports = sequenced(5, mask=SEEN)
    assert ports.sequence is not None
    expected = whole_pass(net, ids, hidden, ports)
    noise = torch.where(SEEN[:, :, None], ports.sequence, 9.0)
    torch.testing.assert_close(whole_pass(net, ids, hidden, replace(ports, sequence=noise)), expected)
    without = whole_pass(net, ids, hidden, Ports(vector=ports.vector))
    torch.testing.assert_close(expected[2], without[2], rtol=1e-4, atol=1e-5)
    assert float((expected[:2] - without[:2]).detach().abs().amax((1, 2)).min()) > 3e-4
    turned = replace(ports, sequence=ports.sequence.flip(1), mask=SEEN.flip(1))
    torch.testing.assert_close(whole_pass(net, ids, hidden, turned), expected, rtol=1e-4, atol=1e-5)


def test_the_encoder_sees_the_kept_tokens_and_the_sequence() -> None:
    net, ids, hidden, ports = sequenced(5, mask=SEEN)
    masked = torch.zeros(3, N, dtype=torch.bool).scatter(1, hidden, True)
    everything = torch.arange(N).expand(3, -1)
    torch.testing.assert_close(net(ids, masked, ports, kept=everything), net(ids, masked, ports))
    lengths: list[int] = []
    net.norm.register_forward_hook(lambda _module, given, _out: lengths.append(given[0].shape[1]))
    known = masked.to(torch.uint8).argsort(dim=1, stable=True)[:, : N - 5]
    assert net(ids, masked, ports, kept=known).shape == (3, N, K)
    assert lengths == [1 + N - 5 + 3]


def test_dropout_with_a_sequence_repeats_and_at_zero_is_none() -> None:
    net, ids, hidden, ports = sequenced(5, mask=SEEN)
    masked = torch.zeros(3, N, dtype=torch.bool).scatter(1, hidden, True)
    out, again = (net(ids, masked, ports, dropout=RowDropout(BatchRng(1, 3), 0.2)) for _ in range(2))
    assert torch.equal(out, again)
    assert bool(torch.isfinite(out).all())
    assert not torch.allclose(out, net(ids, masked, ports), atol=1e-3)
    never = net(ids, masked, ports, dropout=RowDropout(BatchRng(1, 3), 0.0))
    torch.testing.assert_close(never, net(ids, masked, ports), rtol=1e-4, atol=1e-5)


def test_mage_needs_a_vector() -> None:
    net, ids, hidden, ports = sequenced(5)
    with pytest.raises(ShapeError, match="class token"):
        net.unknown(ids, hidden, Ports(sequence=ports.sequence))


class Recorder(torch.nn.Module):
    """Stands where the transformer does: fixed logits, and a note of what it was asked."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits, self.asked = logits, list[tuple[Tensor, Tensor, Tensor]]()

    def unknown(self, ids: Tensor, hidden: Tensor, ports: Ports) -> Tensor:
        assert ports.vector is not None
        masked = torch.zeros_like(ids, dtype=torch.bool).scatter(1, hidden, True)
        self.asked.append((ids.clone(), masked, ports.vector))
        logits = self.logits.expand(len(ids), -1, -1)
        return logits.gather(1, hidden[:, :, None].expand(-1, -1, logits.shape[2]))


def recorded(model: MaskedTokens, logits: Tensor, how: MaskedSampling, n: int = 3) -> tuple[Tensor, Recorder]:
    recorder = Recorder(logits)
    model.transformer = recorder
    return model.sample(rows(n), how, image_rng(0, 0, n, stream="pixels")), recorder


def test_decoding_follows_the_counts_and_keeps_what_is_known() -> None:
    logits = torch.randn(1, N, K, generator=torch.Generator().manual_seed(3))
    out, recorder = recorded(mage(), logits, HOW)
    asked = recorder.asked
    assert [int(masked[0].sum()) for _, masked, _ in asked] == [N, *masked_counts(N, 6)[:-1]]
    for (before, masked, _), (after, still, _) in pairwise(asked):
        assert bool((still <= masked).all()), "a known token is never masked again"
        assert torch.equal(before[~masked], after[~masked])
    ids, masked, _ = asked[-1]
    assert torch.equal(out.flatten(1)[~masked].long(), ids[~masked])


def test_certain_logits_are_obeyed() -> None:
    wanted = torch.arange(N) % K
    logits = torch.full((1, N, K), -30.0).scatter(2, wanted.view(1, N, 1), 30.0)
    out, _ = recorded(mage(), logits, HOW)
    assert torch.equal(out.flatten(1), wanted.expand(3, -1).to(torch.int32))


def test_without_temperature_the_most_confident_tokens_stay() -> None:
    sharpness = torch.linspace(0.1, 40, N)
    logits = torch.zeros(1, N, K)
    logits[0, :, 2] = sharpness
    _, recorder = recorded(mage(), logits, HOW.model_copy(update={"temperature": 0.0, "steps": 2}))
    known = ~recorder.asked[1][1]
    log_p = logits.log_softmax(2).expand(3, -1, -1)
    confidence = log_p.gather(2, recorder.asked[1][0][:, :, None])[:, :, 0]
    assert int(known.sum(1)[0]) == N - masked_counts(N, 2)[0]
    # tokens that were masked again keep their draw until they are drawn anew, so all confidences can be compared
    for row in range(3):
        assert float(confidence[row][known[row]].min()) >= float(confidence[row][~known[row]].max())


def test_draws_follow_the_distribution() -> None:
    p = torch.tensor([0.5, 0.3, 0.15, 0.05])
    target = DATA.target.model_copy(update={"n_codes": 4})
    model = MageConfig.tiny().build(DATA.model_copy(update={"target": target}))
    out, _ = recorded(model, p.log().expand(1, N, 4), HOW.model_copy(update={"steps": 1}), n=2000)
    share = torch.bincount(out.flatten().long(), minlength=4) / out.numel()
    torch.testing.assert_close(share, p, rtol=0, atol=0.01)


def test_guidance_runs_both_halves_at_once() -> None:
    how = HOW.model_copy(update={"guidance": 2.0})
    model = mage()
    null = cast(Any, model.conditioner["representation"]).nulls(3)
    _, recorder = recorded(model, torch.zeros(1, N, K), how)
    ids, masked, condition = recorder.asked[1]
    assert len(ids) == len(masked) == len(condition) == 6
    assert torch.equal(condition[3:], null)
    ids, _, condition = recorder.asked[0]  # all is hidden: one unconditional row stands for all
    assert len(ids) == 4
    assert torch.equal(condition[3:], null[:1])
    _, recorder = recorded(mage(), torch.zeros(1, N, K), HOW)
    assert len(recorder.asked[0][0]) == 3


@pytest.mark.parametrize("n", [1, 2, 7])
def test_more_steps_than_tokens(n: int) -> None:
    counts = masked_counts(n, 20)
    assert len(counts) == 20
    assert counts[-1] == 1
    assert all(1 <= after <= max(before, 1) for before, after in zip([n, *counts], counts, strict=False))


def test_pixels_are_refused_with_the_fix() -> None:
    pixels = TargetSpec(space="pixels", shape=(3, 8, 8), dtype="uint8", n_codes=None, image_px=8)
    with pytest.raises(ConfigError, match="vqgan with space: tokens"):
        MageConfig.tiny().build(DATA.model_copy(update={"target": pixels}))
