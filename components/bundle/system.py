"""RCG: z ~ rdm, x ~ pixels(z). What the bundle wraps.

z: representation, x: target of the pixel generator, y: class index. Paper: 2312.03701.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from pydantic import Field, ValidationError
from torch import Tensor

from components.codecs import Codec, load_codec
from components.config import Config
from components.encoders import Encoder, constant_rows, load_encoder
from components.errors import ArtifactError, ConfigError, DataError, MissingError
from components.generators.sampling import Sampling, check_sampling
from components.images.config import DecodeRecipe
from components.images.decode import decode, square
from components.images.pictures import to_float
from components.pixels import PixelGenerator, load_pixels
from components.rdm import Rdm, load_rdm
from components.rng import Rng, RowRng, derive_seed

CARD = "rcg.json"
SCHEMA = 1
PARTS = ("encoder", "codec", "rdm", "pixels")
PART_FILES = ("config.json", "weights.safetensors")


class SamplingDefaults(Config):
    """How images are drawn unless the caller says otherwise."""

    seed: int = Field(ge=0)
    """Seed of a request that names none."""
    batch_size: int = Field(ge=1)
    """Images drawn together; part of the images' bits."""
    rdm: Sampling
    """How representations are drawn."""
    pixels: Sampling
    """How images are drawn; its kind is that of the pixel generator."""


class BundleCard(Config):
    """rcg.json of a bundle: what is in the folder besides the parts' own configs."""

    schema_version: int
    parts: tuple[str, ...]
    """Subfolders with weights; encoder may be missing."""
    decode: DecodeRecipe
    """How the file of a given picture becomes pixels; as it was for the training images."""
    sampling: SamplingDefaults


@dataclass(frozen=True)
class Overrides:
    """Deviations from the bundle's sampling defaults; None keeps the default."""

    guidance: float | None = None
    """Strength of classifier-free guidance of the pixel generator; 0 is off."""
    steps: int | None = None
    """Steps of the pixel generator."""
    batch_size: int | None = None


class _Part:
    """One subfolder of a bundle, readable like an artifact."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, name: str) -> Path:
        path = self._folder / name
        if not path.is_file():
            raise MissingError("the bundle is incomplete", got=f"no {path}", fix="copy or pull the bundle again")
        return path

    def read_json(self, name: str) -> Any:
        try:
            return json.loads(self.path(name).read_text())
        except ValueError as error:
            raise ArtifactError(
                "the bundle is damaged", got=f"{self._folder / name}: {error}", fix="copy or pull it again"
            ) from error


class RCG:
    """Representation-conditioned generation from a bundle.

    Image i of a seed depends on the seed, i and the split into micro-batches alone.
    """

    def __init__(self, folder: Path, card: BundleCard, device: torch.device) -> None:
        self.folder, self.card, self.device = folder, card, device
        self.codec: Codec = load_codec(_Part(folder / "codec")).to(device)
        self.pixels: PixelGenerator = load_pixels(_Part(folder / "pixels")).to(device)

    @classmethod
    def load(cls, folder: Path | str, *, device: str | torch.device = "cpu") -> Self:
        """Read a bundle folder. Raises: ArtifactError when it is none, damaged, or of a newer format."""
        folder = Path(folder)
        if not (folder / CARD).is_file():
            raise MissingError(
                f"{folder} is not a bundle",
                got=f"no {CARD} in it",
                fix="`dvc pull artifacts/bundle`, or `rcg repro` to make one",
            )
        values = _Part(folder).read_json(CARD)
        version = values.get("schema_version") if isinstance(values, dict) else None
        if version != SCHEMA:
            raise ArtifactError(
                f"{folder / CARD} has a format that this code does not read",
                got=f"schema_version {version}",
                expected=SCHEMA,
                fix="use the components folder inside the bundle, which belongs to it",
            )
        try:
            card = BundleCard.model_validate(values)
        except ValidationError as error:
            raise ArtifactError(
                f"{folder / CARD} is damaged", got=error.errors()[0]["msg"], fix="copy or pull the bundle again"
            ) from error
        return cls(folder, card, torch.device(device))

    @cached_property
    def rdm(self) -> Rdm:
        return load_rdm(_Part(self.folder / "rdm")).to(self.device)

    @cached_property
    def encoder(self) -> Encoder:
        """Loaded when it is first needed. Raises: ConfigError when the bundle was made without one."""
        if "encoder" not in self.card.parts:
            raise ConfigError(
                "this bundle has no encoder, so it cannot look at pictures",
                fix="set bundle.with_encoder: true and make it again",
            )
        return load_encoder(_Part(self.folder / "encoder")).to(self.device)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Class names that sample(label=…) may be given; None when nothing here is told the class."""
        told = self.pixels.conditions == ("class",) or (self.uses_rdm and self.rdm.conditions == ("class",))
        return self.pixels.data.classes if told else None

    @property
    def uses_rdm(self) -> bool:
        """Whether representations have to be drawn before images."""
        return "representation" in self.pixels.conditioner.required

    def class_index(self, name: str) -> int:
        """Raises: ConfigError for an unknown class or a model without classes."""
        if self.classes is None:
            raise _no_classes(name)
        if name not in self.classes:
            raise ConfigError("unknown class", got=name, expected=", ".join(self.classes[:20]))
        return self.classes.index(name)

    def sample(
        self, n: int, seed: int, *, first: int = 0, label: int | None = None, overrides: Overrides = Overrides()
    ) -> Float[Tensor, "n 3 px px"]:  # fmt: skip
        """Images number first … first + n - 1 of the seed, in [0, 1]; of one class where `label` is given."""
        if label is not None and self.classes is None:
            raise _no_classes(label)

        def conditions(numbers: Sequence[int], _: slice) -> dict[str, Tensor]:
            batch: dict[str, Tensor] = {}
            if self.classes is not None:
                batch["class"] = self._labels(seed, numbers, label)
            if self.uses_rdm:
                rng = self._rng(seed, numbers, "rdm")
                batch["representation"] = self.rdm.sample(batch, self.card.sampling.rdm, rng)
            return batch

        return self._draw(range(first, first + n), seed, conditions, overrides)

    def from_representations(
        self, z: Float[Tensor, "n dim"], seed: int, *, numbers: Sequence[int], overrides: Overrides = Overrides()
    ) -> Float[Tensor, "n 3 px px"]:  # fmt: skip
        """One image per representation, which is fed as it is, with the noise of image `numbers[i]` of the seed."""
        if "representation" not in self.pixels.conditions:
            raise ConfigError(
                "this pixel generator does not look at representations",
                got=f"condition.kind: {self.pixels.conditioner.config.kind}",
                fix="use a bundle trained with condition.kind: representation",
            )

        def conditions(_: Sequence[int], rows: slice) -> dict[str, Tensor]:
            return {"representation": z[rows].to(self.device, torch.float32)}

        return self._draw(numbers, seed, conditions, overrides)

    def variations(
        self, image: Float[Tensor, "3 h w"], n: int, seed: int, *, first: int = 0, overrides: Overrides = Overrides()
    ) -> Float[Tensor, "n 3 px px"]:  # fmt: skip
        """n images with the representation of a given one."""
        z = self.represent(image).expand(n, -1)
        return self.from_representations(z, seed, numbers=range(first, first + n), overrides=overrides)

    def interpolate(
        self, a: Float[Tensor, "3 h w"], b: Float[Tensor, "3 h w"], n: int, seed: int,
        overrides: Overrides = Overrides(),
    ) -> Float[Tensor, "n 3 px px"]:  # fmt: skip
        """n images from a to b: linear mixes of the two standardized representations, fed as they are.

        All have the same noise, so that only the condition changes from one to the next.
        """
        share = torch.linspace(0, 1, n, device=self.device)[:, None]
        z = (1 - share) * self.represent(a) + share * self.represent(b)
        return self.from_representations(z, seed, numbers=[0] * n, overrides=overrides)

    def mixture(
        self, a: Float[Tensor, "3 h w"], b: Float[Tensor, "3 h w"], share: float, n: int, seed: int, *, first: int = 0,
        overrides: Overrides = Overrides(),
    ) -> Float[Tensor, "n 3 px px"]:  # fmt: skip
        """n images of one mix of two: (1 - share) a + share b, as in interpolate(), each with its own noise."""
        if not 0 <= share <= 1:
            raise ConfigError("the share of the second picture is out of range", got=share, expected="0 … 1")
        z = (1 - share) * self.represent(a) + share * self.represent(b)
        return self.from_representations(
            z.expand(n, -1), seed, numbers=range(first, first + n), overrides=overrides
        )  # fmt: skip

    @torch.inference_mode()
    def represent(self, image: Float[Tensor, "3 h w"]) -> Float[Tensor, "1 dim"]:
        """Raises: DataError for a picture without any variance in its representation, e.g. a blank one."""
        z: Tensor = self.encoder(image[None].to(self.device))
        if len(constant_rows(z)):
            raise DataError(
                "the picture has no representation: the encoder's output is constant",
                fix="give a picture that shows something",
            )
        return z

    def read_picture(self, data: bytes) -> Float[Tensor, "3 px px"]:
        """Bytes of a picture file, cut and scaled as the training images were before encoding. Raises: DataError."""
        px = max(self.codec.spec.image_px, self.encoder.input_px)
        pixels = square(decode(data, self.card.decode), px)
        return to_float(pixels[None].copy())[0]  # Pillow lends its memory read-only

    @torch.inference_mode()
    def _draw(
        self, numbers: Sequence[int], seed: int, conditions: "Conditions", overrides: Overrides
    ) -> Float[Tensor, "n 3 px px"]:  # fmt: skip
        """Micro-batches of the pixel generator, decoded."""
        how = self.effective(overrides)
        size = how.batch_size
        drawn = []
        for start in range(0, len(numbers), size):
            rows = slice(start, start + size)
            batch = conditions(numbers[rows], rows)
            wanted = {key: value for key, value in batch.items() if key in self.pixels.conditions}
            drawn.append(
                self.codec.decode(self.pixels.sample(wanted, how.pixels, self._rng(seed, numbers[rows], "pixels")))
            )
        return torch.cat(drawn)

    def _rng(self, seed: int, numbers: Sequence[int], stream: str) -> Rng:
        """The noise of these images of the seed: that of image_rng() for a range of them."""
        return RowRng([derive_seed(seed, stream, i) for i in numbers], device=self.device)

    def effective(self, overrides: Overrides) -> SamplingDefaults:
        """The bundle's sampling options with what deviates from them. Raises: ConfigError."""
        given = {"guidance": overrides.guidance, "steps": overrides.steps}
        sampling = self.card.sampling
        default = sampling.pixels
        try:
            pixels = type(default).model_validate(
                default.model_dump() | {k: v for k, v in given.items() if v is not None}
            )
        except ValidationError as error:
            wrong = error.errors()[0]
            raise ConfigError(
                f"cannot sample with this {wrong['loc'][-1]}", got=wrong["input"], expected=wrong["msg"]
            ) from error
        check_sampling(pixels, self.pixels.config)
        batch_size = overrides.batch_size or sampling.batch_size
        return sampling.model_copy(update={"pixels": pixels, "batch_size": batch_size})

    def _labels(self, seed: int, numbers: Sequence[int], label: int | None) -> Int[Tensor, " b"]:
        """The given class, or classes as frequent as in training."""
        if label is not None:
            return torch.full((len(numbers),), label, device=self.device)
        frequencies = self.rdm.frequencies if self.uses_rdm else self.pixels.conditioner.frequencies
        edges = frequencies.double().cumsum(0)
        u = self._rng(seed, numbers, "class").uniform().double()
        return torch.bucketize(u * edges[-1], edges[:-1], right=True)


Conditions = Callable[[Sequence[int], slice], dict[str, Tensor]]
"""(numbers of the images, their rows in this call) -> what the pixel generator is told of them."""


def _no_classes(got: object) -> ConfigError:
    fix = "leave the class out, or train with condition.kind: class"
    return ConfigError("this model does not take a class", got=got, fix=fix)
