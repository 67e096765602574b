"""What every diffusion network promises of its ports, asked of tiny ones with every combination that is used."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from components.conditions.ports import Ports
from components.diffusion.network import Network, widened
from components.errors import ConfigError, ShapeError
from components.nn.unet import UNetShape
from components.nn.vit import seeded_init
from components.pixels.dit_network import DitNetwork, DitShape
from components.pixels.hybrid_network import HybridNetwork, HybridShape
from components.pixels.unet_network import UNetNetwork
from components.rdm.denoiser import ResidualMlp
from tests.support.folders import randomize

KINDS = ("adm", "adm-heads", "ldm", "dit", "hybrid")
B, C, SIDE, M, S, EXTRA = 3, 2, 8, 4, 6, 3
"""Examples, channels, side, positions of a sequence and their width, channels of a spatial condition."""
MASK = torch.tensor([[True, True, True, True], [True, False, False, True], [False, True, False, False]])
T = torch.tensor([0, 400, 999])


def build(kind: str, *, sequence: bool = False, extra: bool = False) -> Network:
    ports = {"sequence_width": S if sequence else None, "c_extra": EXTRA if extra else 0}
    with seeded_init(0):
        if kind == "dit":
            dit = DitShape(c_in=C, c_out=C, side=SIDE, width=16, depth=2, heads=2, patch=2, mlp_ratio=2.0)
            return DitNetwork(dit, **ports)
        if kind == "hybrid":
            hybrid = HybridShape(
                c_in=C, c_out=C, side=SIDE, width=16, depth=2, heads=2, mlp_ratio=2.0, channels=(8, 16)
            )
            return HybridNetwork(hybrid, **ports)
        heads = {"head_width": None, "heads": 2} if kind == "adm-heads" else {"head_width": 4, "heads": None}
        shape = UNetShape(
            c_in=C,
            c_out=C,
            width=8,
            multipliers=(0.5, 2),
            n_blocks=1,
            attention=(2,),
            **heads,
            groups=4,
            family="ldm" if kind == "ldm" else "adm",
            context_dim=S if kind == "ldm" else None,
        )
        return UNetNetwork(shape, **ports)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def conditions(net: Network, *, mask: Tensor | None = None, seed: int = 0) -> Ports:
    """A value for every port that the network has."""
    return Ports(
        vector=normal(B, net.vector_width or 0, seed=seed),
        sequence=normal(B, M, net.sequence_width, seed=seed + 1) if net.sequence_width else None,
        mask=mask,
        spatial=normal(B, net.c_extra, SIDE, SIDE, seed=seed + 2) if net.c_extra else None,
    )


def answer(net: Network, ports: Ports) -> Tensor:
    out: Tensor = net(normal(B, C, SIDE, SIDE, seed=9), net.time_vectors(T), ports)
    return out


def test_a_network_says_which_ports_it_has() -> None:
    for kind in KINDS:
        assert build(kind).ports == {"vector"}
        assert build(kind, sequence=True).ports == {"vector", "sequence"}
        assert build(kind, sequence=True, extra=True).ports == {"vector", "sequence", "spatial"}
    sizes = {"dim": 4, "width": 8, "depth": 1, "time_dim": 4}
    assert ResidualMlp(**sizes, c_out=sizes["dim"], context_dim=3).ports == {"vector"}
    assert ResidualMlp(**sizes, c_out=sizes["dim"], context_dim=None).ports == frozenset()


@pytest.mark.parametrize("kind", KINDS)
def test_more_ports_leave_the_other_parameters_as_they_are(kind: str) -> None:
    plain, wide = build(kind).state_dict(), build(kind, sequence=True, extra=True).state_dict()
    assert plain.keys() <= wide.keys()
    new = wide.keys() - plain.keys()
    part = {"dit": "cross_attn.", "hybrid": "cross_attn.", "ldm": "nothing"}.get(kind, "encoder_kv.")
    assert all(part in name for name in new)
    assert bool(new) == (kind != "ldm")
    changed = {name for name in plain if plain[name].shape != wide[name].shape}
    assert changed == {build(kind).input_weight}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
def test_every_parameter_gets_a_gradient(kind: str, mask: Tensor | None) -> None:
    net = build(kind, sequence=True, extra=True)
    randomize(net)
    answer(net, conditions(net, mask=mask)).square().mean().backward()
    trained = {name: p.grad for name, p in net.named_parameters() if name != "pos_embed"}
    assert not [name for name, grad in trained.items() if grad is None]
    assert not [name for name, grad in trained.items() if grad is not None and not bool(grad.any())]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("port", ["vector", "sequence", "spatial"])
def test_every_port_matters(kind: str, port: str) -> None:
    net = build(kind, sequence=True, extra=True)
    randomize(net)
    given, other = conditions(net), conditions(net, seed=5)
    changed = Ports(**{**vars(given), port: getattr(other, port)})
    moved = (answer(net, given) - answer(net, changed)).detach().abs().amax((1, 2, 3))
    assert float(moved.min()) > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_padding_under_the_mask_changes_nothing(kind: str) -> None:
    net = build(kind, sequence=True)
    randomize(net)
    ports = conditions(net, mask=MASK)
    assert ports.sequence is not None
    noise = torch.where(MASK[:, :, None], ports.sequence, 10 * normal(B, M, S, seed=7))
    expected = answer(net, ports)
    other = answer(net, Ports(vector=ports.vector, sequence=noise, mask=MASK))
    torch.testing.assert_close(other, expected, rtol=1e-5, atol=1e-6)
    longer = Ports(
        vector=ports.vector,
        sequence=torch.cat([ports.sequence, normal(B, 2, S, seed=8)], 1),
        mask=torch.cat([MASK, torch.zeros(B, 2, dtype=torch.bool)], 1),
    )
    torch.testing.assert_close(answer(net, longer), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_that_hides_nothing_is_no_mask(kind: str) -> None:
    net = build(kind, sequence=True)
    randomize(net)
    seen = torch.ones(B, M, dtype=torch.bool)
    torch.testing.assert_close(
        answer(net, conditions(net, mask=seen)), answer(net, conditions(net)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_that_is_hidden_as_a_whole_leaves_finite_values_and_gradients(kind: str) -> None:
    net = build(kind, sequence=True)
    randomize(net)
    hidden = MASK & torch.tensor([[True], [False], [True]])
    out = answer(net, conditions(net, mask=hidden))
    assert bool(torch.isfinite(out).all())
    out.square().sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in net.parameters() if p.grad is not None)
    first, other = conditions(net, mask=hidden), conditions(net, mask=hidden, seed=5)
    swapped = Ports(vector=first.vector, sequence=other.sequence, mask=hidden)
    torch.testing.assert_close(answer(net, swapped)[1], answer(net, first)[1], rtol=1e-5, atol=1e-6)


def test_attention_of_dit_to_a_sequence_starts_as_nothing() -> None:
    plain, attending = build("dit"), build("dit", sequence=True)
    randomize(plain)
    loaded = attending.load_state_dict(plain.state_dict(), strict=False)
    assert all("cross_attn" in name for name in loaded.missing_keys)
    ports = conditions(attending)
    torch.testing.assert_close(answer(attending, ports), answer(plain, Ports(vector=ports.vector)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_widened_network_is_the_same_function(kind: str) -> None:
    plain, wide = build(kind), build(kind, extra=True)
    randomize(plain)
    wide.load_state_dict(widened(plain.state_dict(), wide))
    ports = conditions(wide)
    expected = answer(plain, Ports(vector=ports.vector))
    torch.testing.assert_close(answer(wide, ports), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(answer(wide, conditions(wide, seed=5)).shape, expected.shape)
    answer(wide, ports).sum().backward()
    grad = wide.get_parameter(wide.input_weight).grad
    assert grad is not None
    assert bool(grad[:, C:].any()), "the new channels learn"
    with pytest.raises(ShapeError, match="more channels"):
        widened(wide.state_dict(), plain)


@pytest.mark.parametrize("kind", KINDS)
def test_one_row_of_time_is_for_all(kind: str) -> None:
    """The network in float64: on some processors another number of rows alone rounds a float32 product by the bound."""
    net = build(kind, sequence=True)
    randomize(net)
    time, times = (net.time_vectors(torch.tensor(t)) for t in ([7], [7, 7, 7]))
    torch.testing.assert_close(times, time.expand_as(times), rtol=1e-5, atol=1e-6)
    ports = conditions(net)
    ports = replace(ports, **{name: part.double() for name, part in vars(ports).items() if torch.is_tensor(part)})
    net.double()
    x = normal(B, C, SIDE, SIDE).double()
    one, each = (net(x, rows.double(), ports) for rows in (time, time.expand_as(times)))
    torch.testing.assert_close(one, each, rtol=1e-5, atol=1e-6)


def test_the_context_of_an_ldm_may_be_a_sequence_alone() -> None:
    net = build("ldm", sequence=True)
    randomize(net)
    ports = conditions(net)
    assert ports.vector is not None
    assert ports.sequence is not None
    joined = torch.cat([ports.vector[:, None], ports.sequence], 1)
    torch.testing.assert_close(answer(net, Ports(sequence=joined)), answer(net, ports))


def test_mistakes_are_named() -> None:
    shape = UNetShape(
        c_in=C,
        c_out=C,
        width=8,
        multipliers=(1, 3),
        n_blocks=1,
        attention=(2,),
        head_width=None,
        heads=5,
        groups=4,
        family="adm",
    )
    with pytest.raises(ConfigError, match="do not split evenly over attention heads"):
        UNetNetwork(shape)
    ldm = UNetShape(**{**vars(shape), "family": "ldm", "heads": 2, "context_dim": S})
    with pytest.raises(ConfigError, match="rows of one width"):
        UNetNetwork(ldm, sequence_width=S + 1)
