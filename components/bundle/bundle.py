"""A bundle: the folder of a finished model, loaded as a system that answers requests."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from components.base import Batch
from components.bundle.edits import read_picture
from components.bundle.provenance import SCHEMA as PROVENANCE_SCHEMA
from components.bundle.provenance import Provenance, check_bundle, platform_facts
from components.bundle.request import Picture, Request
from components.bundle.system import System, SystemSampling
from components.codecs.base import load_codec
from components.config import Config
from components.documents import read_json, validated
from components.encoders.base import REDUCTION, Encoder, constant_rows, load_encoder
from components.errors import ArtifactError, ConfigError, DataError, MissingError
from components.generators.files import EARLIER
from components.guides import load_guide
from components.images.config import DecodeRecipe
from components.images.decode import square
from components.images.pictures import to_float
from components.pixels import load_pixels
from components.rdm import load_rdm
from components.text import load_text
from components.text.bpe import BPE
from components.text.model import TextModel
from components.text.pretrained import ARCHITECTURE, TOKENIZER

CARD = "rcg.json"
SCHEMA = 2
PARTS = ("encoder", "codec", "text", "rdm", "pixels", "guide", "upsampler")
PART_FILES = ("config.json", "weights.safetensors", REDUCTION, EARLIER, ARCHITECTURE, TOKENIZER, BPE)


class BundleCard(Config):
    """rcg.json of a bundle: what is in the folder besides the parts' own configs."""

    schema_version: int
    parts: tuple[str, ...]
    """Subfolders with weights, of PARTS."""
    decode: DecodeRecipe
    """How the file of a given picture becomes pixels; as for the training images."""
    sampling: SystemSampling
    """Options of a request that names none: those that were evaluated."""


class Bundle:
    """A loaded bundle. `sample` answers requests; `provenance` says what it did."""

    def __init__(self, folder: Path, card: BundleCard, digest: str, device: torch.device) -> None:
        self.folder, self.card, self.digest, self.device = folder, card, digest, device
        has_encoder = "encoder" in card.parts
        self.system = System(
            rdm=load_rdm(_Part(folder / "rdm")).to(device) if "rdm" in card.parts else None,
            pixels=load_pixels(_Part(folder / "pixels")).to(device),
            codec=load_codec(_Part(folder / "codec")).to(device),
            sampling=card.sampling,
            represent=self.represent if has_encoder else None,
            embed=self.embed if "text" in card.parts else None,
            recipe=card.decode,
            guide=load_guide(_Part(folder / "guide")).to(device) if "guide" in card.parts else None,
            upsampler=load_pixels(_Part(folder / "upsampler")).to(device) if "upsampler" in card.parts else None,
        )

    @classmethod
    def load(cls, folder: Path | str, *, device: str | torch.device = "cpu") -> Self:
        """Read a bundle folder, every file of which is checked first.

        Raises: MissingError when it is none, TamperedError when it is damaged, ArtifactError for another format.
        """
        folder = Path(folder)
        if not (folder / CARD).is_file():
            fix = "`dvc pull artifacts/bundle`, or `rcg repro` to make one"
            raise MissingError(f"{folder} is not a bundle", got=f"no {CARD} in it", fix=fix)
        digest = check_bundle(folder)
        values = _Part(folder).read_json(CARD)
        version = values.get("schema_version") if isinstance(values, dict) else None
        if version != SCHEMA:
            raise ArtifactError(
                f"{folder / CARD} has a format that this code does not read",
                got=f"schema_version {version}",
                expected=SCHEMA,
                fix="use the components folder inside the bundle, which belongs to it",
            )
        return cls(folder, validated(BundleCard, values, f"{folder / CARD}"), digest, torch.device(device))

    @cached_property
    def encoder(self) -> Encoder:
        """Loaded when it is first needed. Raises: ConfigError when the bundle is made without one."""
        if "encoder" not in self.card.parts:
            fix = "set bundle.with_encoder: true and make it again"
            raise ConfigError("this bundle has no encoder, so it cannot look at pictures", fix=fix)
        return load_encoder(_Part(self.folder / "encoder")).to(self.device)

    @cached_property
    def text(self) -> TextModel:
        """Loaded when it is first needed."""
        return load_text(_Part(self.folder / "text")).to(self.device)

    def embed(self, texts: Sequence[str]) -> Batch:
        """The fields of texts; warns of those that are cut off. Shapes: n texts -> (n, ...)."""
        self.text.warn_of_cuts(texts)
        return self.text.rows(texts)

    def sample(self, request: Request) -> Float[Tensor, "n 3 px px"]:
        """Images in [0, 1]. Raises: ConfigError for a request that this model cannot answer; DataError."""
        return self.system.sample(request)

    def provenance(self, request: Request) -> Provenance:
        """What the images of a request share; each adds its index."""
        return Provenance(
            schema_version=PROVENANCE_SCHEMA,
            bundle=self.digest,
            parents={},
            seed=request.seed,
            index=None,
            first=request.first,
            n=request.n,
            shown=None,
            columns=None,
            condition=request.condition,
            sampling=self.system.options(request).model_dump(mode="json", exclude={"seed"}),
            platform=platform_facts(self.device.type),
        )

    @torch.no_grad()
    def represent(self, picture: Picture) -> Float[Tensor, "1 dim"]:
        """The representation of a given picture.

        Raises: DataError for a file that is no picture, or one without any variance in its representation (blank).
        """
        z: Tensor = self.encoder(self._read(picture)[None].to(self.device))
        if len(constant_rows(z)):
            raise DataError(
                "the picture has no representation: the encoder's output is constant",
                fix="give a picture that shows something",
            )
        return z

    def _read(self, picture: Picture) -> Float[Tensor, "3 px px"]:
        """Pixels in [0, 1], cut and scaled as the training images before encoding."""
        px = max(self.system.codec.spec.image_px, self.encoder.input_px)
        pixels = square(read_picture(picture, self.card.decode), px)
        return to_float(pixels[None].copy())[0]  # Pillow lends its memory read-only


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
        return read_json(self.path(name), fix="copy or pull the bundle again")
