"""A joint image-text space: a linear head on a frozen text embedding, and one on a frozen representation, trained by
contrast (2103.00020; with the images locked as in 2111.07991).

z: representation, t: text embedding.
"""

from jaxtyping import Float
from torch import Tensor, nn

from components.errors import ConfigError
from components.text.base import scaled


class Shared:
    """The space that both towers of a CLIP map to: there is nothing to train.

    Differs: representations have no mean over coordinates, CLIP's embeddings a small one; for a text this changes no
    order of images.
    Raises: ConfigError for towers of different widths.
    """

    def __init__(self, image_dim: int, text_dim: int) -> None:
        if image_dim != text_dim:
            raise ConfigError(
                "text encoder and image encoder share no space",
                got=f"widths {text_dim} and {image_dim}",
                fix="import both towers of one file (rcg import-checkpoint FILE), or give text.joint.train a training",
            )

    def of_text(self, t: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        return scaled(t)

    def of_image(self, z: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        return scaled(z)


class Joint(nn.Module):
    """The two heads. `image_dim`: of the representations; without `dim` the space is theirs, and their head nothing."""

    def __init__(self, dim: int | None, *, image_dim: int, text_dim: int) -> None:
        super().__init__()
        self.own, self.dim, self.image_dim = dim is None, dim or image_dim, image_dim
        self.text = nn.Linear(text_dim, self.dim, bias=False)
        self.image = nn.Identity() if dim is None else nn.Linear(image_dim, self.dim, bias=False)

    def of_text(self, t: Float[Tensor, "n text_dim"]) -> Float[Tensor, "n dim"]:
        """Of norm sqrt(dim), as are representations."""
        return scaled(self.text(t))

    def of_image(self, z: Float[Tensor, "n image_dim"]) -> Float[Tensor, "n dim"]:
        return scaled(self.image(z))
