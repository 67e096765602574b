"""The space of images and texts: heads, loss and retrieval."""

import math

import pytest
import torch

from components.errors import ConfigError
from components.metrics.retrieval import chance, recall
from components.nn.vit import seeded_init
from components.rng import BatchRng
from components.text.joint import Joint, Shared
from components.text.joint_training import JointTrainer, caption_numbers

D_IMAGE, D_TEXT = 12, 20


def _pairs(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and texts that show the same five facts, each in its own way."""
    facts = torch.randn(n, 5, generator=torch.Generator().manual_seed(seed))
    ways = torch.Generator().manual_seed(9)
    z, t = (facts @ torch.randn(5, d, generator=ways) for d in (D_IMAGE, D_TEXT))
    return (z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True), t


def _trained(dim: int | None) -> JointTrainer:
    with seeded_init(0):
        trainer = JointTrainer(Joint(dim, image_dim=D_IMAGE, text_dim=D_TEXT))
    z, t = _pairs(64, 0)
    batch = {"representation": z, "text": t, "caption": torch.arange(64.0)}
    optimizer = torch.optim.Adam(trainer.parameters(), 0.01)
    for step in range(150):
        loss, _ = trainer(batch, BatchRng(step, 64))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return trainer


def test_unseen_texts_find_their_images() -> None:
    z, t = _pairs(50, 1)
    right = torch.eye(50, dtype=torch.bool)
    assert math.isclose(chance(right, 5), 0.1)
    for dim, least in ((6, 0.7), (None, 0.5)):
        joint = _trained(dim).joint.eval()
        with torch.no_grad():
            similarity = joint.of_text(t) @ joint.of_image(z).T
        assert recall(similarity, right, 5) > least, dim
    assert torch.equal(joint.of_image(z).argmax(1), z.argmax(1))  # without a width, images stay as they are


def test_loss_is_the_cross_entropy_of_both_ways_with_equal_captions_right() -> None:
    with seeded_init(0):
        trainer = JointTrainer(Joint(6, image_dim=D_IMAGE, text_dim=D_TEXT))
    z, t = _pairs(3, 0)
    numbers = caption_numbers(["a cat", "a dog", "a cat"])
    loss, scalars = trainer({"representation": z, "text": t, "caption": numbers.float()}, BatchRng(0, 3))
    a, b = (
        torch.nn.functional.normalize(head(x), dim=1) for head, x in ((trainer.joint.text, t), (trainer.joint.image, z))
    )
    total = 0.0
    for s in (a @ b.T / 0.07, b @ a.T / 0.07):
        p = s.softmax(1).log()
        total += -float(((p[0, 0] + p[0, 2]) / 2 + p[1, 1] + (p[2, 0] + p[2, 2]) / 2).detach()) / 3
    assert math.isclose(float(loss.detach()), total / 2, rel_tol=1e-4)
    assert math.isclose(float(scalars["temperature"]), 0.07, rel_tol=1e-5)


def test_chance_counts_every_right_image() -> None:
    right = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)
    assert math.isclose(chance(right, 1), (2 / 4 + 1 / 4) / 2)
    assert math.isclose(chance(right, 2), ((1 - 1 / 6) + 1 / 2) / 2)
    assert chance(right, 9) == 1
    similarity = torch.tensor([[0.1, 0.9, 0.5, 0.2], [0.1, 0.9, 0.5, 0.2]])
    assert recall(similarity, right, 1) == 0.5


def test_towers_that_share_a_space_are_compared_as_they_are() -> None:
    z, t = torch.eye(4), torch.eye(4)[[2, 0]] * 3
    shared = Shared(4, 4)
    assert (shared.of_text(t) @ shared.of_image(z).T).argmax(1).tolist() == [2, 0]
    with pytest.raises(ConfigError, match=r"share no space[\s\S]*widths 4 and 5[\s\S]*import-checkpoint"):
        Shared(5, 4)
