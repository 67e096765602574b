"""DiT: a transformer over patches, modulated by time and condition. Paper: 2212.09748. n: tokens, p: patch side."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from components.diffusion.schedule import ScheduleConfig
from components.errors import ConfigError
from components.nn.attention import Attention, Mlp
from components.nn.patches import PatchEmbed, sincos_positions
from components.nn.timestep import sinusoids
from components.pixels.base import PixelData
from components.pixels.condition import ConditionConfig
from components.pixels.diffusion import DiffusionConfig, DiffusionGenerator, DiffusionSampling, Network

_N_SINUSOIDS = 256


class DitConfig(DiffusionConfig):
    """Diffusion transformer on pixels or latents."""

    kind: Literal["dit"]
    condition: ConditionConfig
    """What the generator is told about the image."""
    width: int = Field(ge=4, multiple_of=4)
    """Width of the tokens (XL: 1152)."""
    depth: int = Field(ge=1)
    """Number of blocks (XL: 28)."""
    heads: int = Field(ge=1)
    """Attention heads; must divide width (XL: 16)."""
    patch: int = Field(ge=1)
    """Side of a square patch in target elements; must divide the target's side."""
    mlp_ratio: float = Field(gt=0)
    """Hidden width of a block's MLP over width (DiT: 4)."""

    @classmethod
    def tiny(cls) -> "DitConfig":
        return cls(
            kind="dit", condition=ConditionConfig.tiny(), width=16, depth=2, heads=2, patch=2, mlp_ratio=2.0,
            schedule=ScheduleConfig.tiny(), prediction="v", min_snr=None, variance="fixed",
            latents="standardized",
        )  # fmt: skip

    def check_side(self, side: int) -> None:
        if side % self.patch:
            raise ConfigError(
                "the target does not split evenly into patches", got=f"side {side}, patch {self.patch}",
                fix=f"choose pixels.model.patch among the divisors of {side}",
            )  # fmt: skip

    def build(self, data: PixelData) -> DiffusionGenerator:
        """Raises: ConfigError for tokens, a target that is not square, or a patch that does not divide its side."""
        spec = data.target
        if spec.space == "tokens":
            fix = "let the codec store latents instead (codec: none, or vqgan with latents), or use pixels kind: mage"
            raise ConfigError("dit works on pixels or latents, but the codec stores tokens", fix=fix)
        channels, height, width = spec.shape
        if height != width:
            raise ConfigError("dit needs a square target", got=spec.shape)
        self.check_side(height)
        network = DitNetwork(self, channels, height)
        return DiffusionGenerator(self, data, condition=self.condition, network=network, width=self.width)


class DitSampling(DiffusionSampling):
    """How targets are drawn from a DiT."""

    kind: Literal["dit"]

    @classmethod
    def tiny(cls) -> "DitSampling":
        return cls(kind="dit", sampler="ddim", steps=4, spacing="trailing", eta=0.0, guidance=0.0)


class TimeEmbedder(nn.Module):
    """256 sinusoids of t, then an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(_N_SINUSOIDS, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Int[Tensor, " n"]) -> Float[Tensor, "n width"]:
        out: Tensor = self.mlp(sinusoids(t, _N_SINUSOIDS))
        return out


class DitBlock(nn.Module):
    """Transformer block whose norms are shifted, scaled and gated by the condition (adaLN-zero)."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attn = Attention(width, heads, qkv_bias=True)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Float[Tensor, "b n width"], c: Float[Tensor, "b width"]) -> Float[Tensor, "b n width"]:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c)[:, None].chunk(
            6, dim=2
        )  # (b, 1, width)
        x = x + gate1 * self.attn(torch.addcmul(shift1, self.norm1(x), 1 + scale1))
        out: Tensor = x + gate2 * self.mlp(torch.addcmul(shift2, self.norm2(x), 1 + scale2))
        return out


class FinalLayer(nn.Module):
    """Modulated norm, then a linear map of each token to its patch."""

    def __init__(self, width: int, n_out: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.linear = nn.Linear(width, n_out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Float[Tensor, "b n width"], c: Float[Tensor, "b width"]) -> Float[Tensor, "b n out"]:
        shift, scale = self.adaLN_modulation(c)[:, None].chunk(2, dim=2)
        out: Tensor = self.linear(torch.addcmul(shift, self.norm_final(x), 1 + scale))
        return out


class DitNetwork(Network):
    """(x_t, time vector, condition vector) -> prediction of x_t's shape. Parameter names are DiT's.

    Differs: GELU is exact (erf), as in the RCG reference and unlike the published DiT; fresh positions are laid out as
    in components.nn.patches, rows first, where DiT has columns first.
    """

    def __init__(self, config: DitConfig, channels: int, side: int) -> None:
        super().__init__()
        self.patch, self.channels = config.patch, channels * (2 if config.variance == "learned" else 1)
        self.x_embedder = PatchEmbed(side, config.patch, channels, config.width)
        self.t_embedder = TimeEmbedder(config.width)
        positions = sincos_positions(self.x_embedder.side, config.width)
        self.pos_embed = nn.Parameter(positions[None], requires_grad=False)  # (1, n, width)
        self.blocks = nn.ModuleList(DitBlock(config.width, config.heads, config.mlp_ratio) for _ in range(config.depth))
        self.final_layer = FinalLayer(config.width, config.patch**2 * self.channels)
        self._initialize()

    def _initialize(self) -> None:
        """Xavier; N(0, 0.02) in the time MLP; zero modulation and head, so that every block starts as the identity."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.flatten(1))  # a patch is one input vector
        for name, weight in self.t_embedder.named_parameters():
            if name.endswith("weight"):
                nn.init.normal_(weight, std=0.02)
        modulations = [m.adaLN_modulation[1] for m in (*self.blocks, self.final_layer)]
        for linear in (*modulations, self.final_layer.linear):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        if self.x_embedder.proj.bias is not None:
            nn.init.zeros_(self.x_embedder.proj.bias)

    def time_vectors(self, t: Int[Tensor, " n"]) -> Float[Tensor, "n width"]:
        vectors: Tensor = self.t_embedder(t)
        return vectors

    def predict(
        self, x_t: Float[Tensor, "b c h w"], time: Float[Tensor, "#b width"], condition: Float[Tensor, "b width"]
    ) -> Float[Tensor, "b c h w"]:
        x = self.x_embedder(x_t) + self.pos_embed  # (b, n, width)
        c = time + condition
        for block in self.blocks:
            x = block(x, c)
        return self._image(self.final_layer(x, c))

    def _image(self, patches: Float[Tensor, "b n out"]) -> Float[Tensor, "b c h w"]:
        side, p = self.x_embedder.side, self.patch
        x = patches.reshape(-1, side, side, p, p, self.channels)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, self.channels, side * p, side * p)
