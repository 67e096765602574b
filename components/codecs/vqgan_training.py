"""Fitting a VQGAN to pictures: reconstruction, commitment, a codebook that follows the encoder; if configured, a
perceptual distance and a discriminator.

Paper: 2012.09841 (VQGAN), 1711.00937 (VQ-VAE, eq. 3 and appendix A.1: the codebook as a moving average).
Differs: a start without the codebook, which encoder outputs that are still all alike would fill badly; entries that
fall out of use are moved onto encoder outputs. MaskGIT and MAGE never released how their tokenizer was trained.
z_e: encoder output, z_q: its nearest codebook vectors, k: number of codes.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from components.base import Batch
from components.codecs import perceptual
from components.codecs.adversarial import Discriminator, adaptive_weight, hinge
from components.codecs.config import VqganObjective
from components.codecs.vqgan import Vqgan
from components.nn.gather import sum_over_ranks
from components.rng import BatchRng
from components.training.trainable import Trainable


class VqganTrainable(Trainable):
    """A VQGAN in training. All statistics of the codebook are those of the global batch, equal on every rank.

    Batch: images (b, 3, px, px) in [0, 1].
    """

    steps_done: Tensor
    use: Tensor
    """Moving average of how often each code is used in a batch (k,); zero at first, so that all codes are restarted."""
    total: Tensor
    """Moving average of the sum of the encoder outputs of each code (k, d)."""

    def __init__(self, vqgan: Vqgan, objective: VqganObjective) -> None:
        super().__init__()
        self.vqgan, self.objective = vqgan, objective
        codes = vqgan.quantize.embedding.weight.requires_grad_(False)
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))
        self.register_buffer("use", torch.zeros(len(codes)))
        self.register_buffer("total", torch.zeros_like(codes))
        self.perceptual = None if objective.perceptual is None else perceptual.build(objective.perceptual)
        self.discriminator = None if objective.adversarial is None else Discriminator(objective.adversarial)
        self._last: tuple[Tensor, Tensor] | None = None

    def optimizer_parameters(self) -> list[list[tuple[str, nn.Parameter]]]:
        """The autoencoder's, then the discriminator's."""
        named = [(n, p) for n, p in self.named_parameters() if p.requires_grad]
        groups = [[(n, p) for n, p in named if n.startswith("discriminator.") == theirs] for theirs in (False, True)]
        return groups if self.discriminator is not None else groups[:1]

    def forward(self, batch: Batch, rng: BatchRng, which: int = 0) -> tuple[Tensor, Mapping[str, Tensor]]:
        if which > 1 or (which and self.discriminator is None):
            raise IndexError(f"this VQGAN has {1 + (self.discriminator is not None)} optimizers, not {which + 1}")
        return self._judge(batch["images"]) if which else self._reconstruct(batch["images"], rng)

    def _reconstruct(self, images: Tensor, rng: BatchRng) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The autoencoder's loss."""
        objective = self.objective
        free = self.training * (self.steps_done < objective.free_steps)  # stays on the device
        z_e = self.vqgan.encoder(images)
        restarted = self._restart(z_e.detach(), rng) if self.training else None
        index = self.vqgan.quantize.nearest(z_e.detach())
        z_q = self.vqgan.quantize(index)
        straight = z_e + (z_q - z_e).detach()  # the gradient skips z_q
        reconstruction = self.vqgan.decoder(torch.where(free, z_e, straight))
        l1 = (reconstruction - images).abs().mean()
        l2 = (reconstruction - images).square().mean()
        commitment = (z_e - z_q).square().mean()
        counts = self._counts(index)
        if self.training:
            self._follow(z_e.detach(), index, counts)
            self.use.mul_(~free)
        seen, told = self._looks(images, reconstruction, objective.l1 * l1 + objective.l2 * l2)
        loss = seen + objective.commitment * commitment * ~free
        health = {"perplexity": perplexity(counts), "codes_used": (counts > 0).float().mean()}
        health |= {} if restarted is None else {"codes_restarted": restarted}
        return loss, {"l1": l1.detach(), "l2": l2.detach(), "commitment": commitment.detach(), **health, **told}

    def _looks(self, images: Tensor, made: Tensor, pixels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The pixel loss, and what perceptual network and discriminator add to it."""
        told: dict[str, Tensor] = {}
        if self.perceptual is not None:
            distance = self.perceptual(images, made)
            pixels = pixels + self.perceptual.weight * distance
            told["perceptual"] = distance.detach()
        if self.discriminator is None or self.objective.adversarial is None:
            return pixels, told
        self._last = (images, made.detach())
        adversarial = -self.discriminator(made).mean()
        told["adversarial"] = adversarial.detach()
        if not torch.is_grad_enabled():
            return pixels + self._plays() * self.objective.adversarial.weight * adversarial, told
        balance = adaptive_weight(pixels, adversarial, self.vqgan.decoder.conv_out.weight, rows=len(images))
        told["adversarial_weight"] = balance
        return pixels + self._plays() * self.objective.adversarial.weight * balance * adversarial, told

    def _judge(self, images: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The discriminator's loss, on the pictures that the autoencoder has just made of these."""
        if self.discriminator is None:
            raise IndexError("there is no discriminator")
        if self._last is None or self._last[0] is not images:
            with torch.no_grad():
                index = self.vqgan.quantize.nearest(self.vqgan.encoder(images))
                self._last = (images, self.vqgan.decoder(self.vqgan.quantize(index)))
        real, fake = self.discriminator(images), self.discriminator(self._last[1])
        self._last = None
        told = {"judged_real": real.detach().mean(), "judged_fake": fake.detach().mean()}
        return self._plays() * hinge(real, fake), told

    def _plays(self) -> Tensor:
        """1 once the discriminator takes part, else 0; stays on the device."""
        start = 0 if self.objective.adversarial is None else self.objective.adversarial.start_step
        return (self.steps_done >= start).float()

    def after_step(self, step: int, n_steps: int) -> None:  # noqa: ARG002
        self.steps_done.fill_(step)

    def _counts(self, index: Int[Tensor, "b h w"]) -> Float[Tensor, " k"]:
        return sum_over_ranks(torch.bincount(index.flatten(), minlength=len(self.use)).to(torch.float32))

    @torch.no_grad()
    def _restart(self, z_e: Float[Tensor, "b d h w"], rng: BatchRng) -> Tensor:
        """Move every hardly used code onto an encoder output, drawn from the global batch; returns their share.

        No host synchronization.
        """
        codes = self.vqgan.quantize.embedding.weight
        flat = z_e.permute(0, 2, 3, 1).flatten(0, 2).float()
        per_image, average = z_e.shape[2] * z_e.shape[3], rng.n * z_e.shape[2] * z_e.shape[3] / len(codes)
        wanted = (rng.shared_uniform(len(codes)) * rng.n * per_image).long() - rng.start * per_image
        mine = (wanted >= 0) & (wanted < len(flat))
        drawn = flat[wanted.clamp(0, len(flat) - 1)] * mine[:, None]
        drawn = sum_over_ranks(drawn)  # one rank has each row, the others zeros
        unused = self.use < self.objective.restart_below * average
        unused = unused | (self.use == 0)
        codes.copy_(torch.where(unused[:, None], drawn, codes))
        self.use.copy_(torch.where(unused, average, self.use))
        self.total.copy_(torch.where(unused[:, None], drawn * average, self.total))
        return unused.float().mean()

    @torch.no_grad()
    def _follow(self, z_e: Float[Tensor, "b d h w"], index: Int[Tensor, "b h w"], counts: Float[Tensor, " k"]) -> None:
        """One step of the moving averages; each code becomes the mean of the encoder outputs that chose it."""
        flat = z_e.permute(0, 2, 3, 1).flatten(0, 2).float()
        sums = sum_over_ranks(torch.zeros_like(self.total).index_add_(0, index.flatten(), flat))
        step = 1 - self.objective.codebook_decay
        self.use.lerp_(counts, step)
        self.total.lerp_(sums, step)
        self.vqgan.quantize.embedding.weight.copy_(self.total / self.use.clamp(min=1e-6)[:, None])


def perplexity(counts: Float[Tensor, " k"]) -> Tensor:
    """exp of the entropy of the codes: as many equally frequent codes would be as informative."""
    share = counts / counts.sum().clamp(min=1)
    entropy: Tensor = torch.special.entr(share).sum()
    return entropy.exp()
