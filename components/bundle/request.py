"""A request: what a person asks of a system. The CLI, the server, `rcg verify` and the provenance share this type."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from struct import pack

from components.errors import ConfigError
from components.printable import one_line

MAX_IMAGES = 10_000
"""Images of a request that are held in memory at once."""
_MOST = 10**9
_MOST_TEXT = 100_000


@dataclass(frozen=True)
class Picture:
    """A given picture: the bytes of its file, and what messages call it."""

    data: bytes = field(repr=False)
    name: str = "the given picture"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A picture, and the part of it that is to be filled: where the mask is transparent, or else white."""

    image: Picture
    mask: Picture
    """Of the picture's aspect, in any size."""
    free: bool = False
    """Sample the representation, too. Otherwise, and without any other condition, it is the picture's own."""
    repaint: int | None = None
    """Times that each step is taken (DiffusionSampling.repaint); None: the system's default."""

    @property
    def condition(self) -> dict[str, str]:
        """As provenance records it."""
        return {"image": self.image.sha256, "mask": self.mask.sha256} | ({"free": "yes"} if self.free else {})


@dataclass(frozen=True, kw_only=True)
class Upscale:
    """Images that the upsampler makes larger: those that are sampled, or a given picture."""

    image: Picture | None = None
    noise: float | None = None
    """Level of the noise that is added to the small image first; None: the system's default."""

    @property
    def condition(self) -> dict[str, str]:
        """As provenance records it."""
        return {"upscale": "yes"} | ({"image": self.image.sha256} if self.image is not None else {})


@dataclass(frozen=True, kw_only=True)
class Request:
    """Images number first … first + n - 1 of a seed, under one condition at most; a class may stand beside a text.

    Raises: ConfigError for options that exclude each other or that are out of range.
    """

    n: int = 1
    seed: int = 0
    first: int = 0
    class_name: str | None = None
    text: tuple[str, ...] = ()
    """What the images show, in words; of several texts each has as many of the images, one after the other. "": none,
    which is what guidance pushes away from."""
    like: Picture | None = None
    """Images with the representation of this picture."""
    between: tuple[Picture, Picture] | None = None
    """Images on the straight line between two representations, all with the noise of image 0."""
    share: float | None = None
    """With `between`: one mix, (1 - share) a + share b, each image with its own noise. With `text` and `like`: the same
    of what the representation generator makes of the text, and the picture."""
    representation: tuple[float, ...] | None = None
    """Fed as it is."""
    edit: Edit | None = None
    """Images that are this picture but for a part, whatever the condition."""
    upscale: Upscale | None = None
    """Images of the upsampler's size."""
    guidance: float | None = None
    """Strength of classifier-free guidance of the last generator, 0 is off; None: the system's default, as below."""
    guide_scale: float | None = None
    """How strongly the guide pulls towards the class, 0 is off."""
    rdm_guidance: float | None = None
    """The same of the representation generator."""
    steps: int | None = None
    """Steps of the last generator."""
    batch_size: int | None = None
    """Images sampled together; part of the images' bits."""

    def __post_init__(self) -> None:
        conditions = {"class": self.class_name, "text": self.text, "like": self.like, "between": self.between}
        given = [name for name, value in {**conditions, "representation": self.representation}.items() if value]
        if len(given) > 1 and not {"text"} < set(given) <= {"class", "text", "like"}:
            raise ConfigError("these conditions exclude each other", got=", ".join(given), fix="give one of them")
        if self.upscale is not None and self.upscale.image is not None and (given or self.edit is not None):
            raise ConfigError(
                "a picture is upscaled as it is", got=", ".join((*given, "upscale")), fix="give one of them"
            )
        if not 1 <= self.n <= _MOST or not 0 <= self.first <= _MOST:
            raise ConfigError("the number of images is out of range", got=self.n, expected=f"1 … {_MOST}")
        if not 0 <= self.seed < 2**63:
            raise ConfigError("a seed is not negative, and of 63 bits at most", got=self.seed)
        self._check_text()
        if not all(map(isfinite, self.representation or ())):
            raise ConfigError("a representation consists of finite numbers")
        if self.share is not None:
            self._check_share(self.share)
        elif self.between is not None and not 2 <= self.n <= MAX_IMAGES:
            raise ConfigError(
                "the number of images between two is out of range",
                got=f"-n {self.n}",
                expected=f"2 … {MAX_IMAGES}",
                fix="-n 8",
            )

    def _check_text(self) -> None:
        """One line each, so that provenance can hold them in lines, and no longer than a person writes."""
        if wrong := [text for text in self.text if "\t" in text or one_line(text) != text]:
            fix = "write it in one line of plain characters"
            raise ConfigError("a text has control characters", got=repr(wrong[0])[:80], fix=fix)
        if sum(map(len, self.text)) > _MOST_TEXT:
            got, expected = f"{sum(map(len, self.text))} characters", f"at most {_MOST_TEXT} in all"
            raise ConfigError("so much text is no request", got=got, expected=expected)
        if self.text and self.n % len(self.text):
            raise ConfigError(
                "each text has as many images",
                got=f"{self.n} images of {len(self.text)} texts",
                expected="a multiple of the number of texts",
            )

    def _check_share(self, share: float) -> None:
        if self.between is None and not self.is_mix:
            fix = "--between A B --share 0.5, or --text T --like A --share 0.5"
            raise ConfigError("a share mixes two pictures, or a text and one", got="--share alone", fix=fix)
        if not 0 <= share <= 1:
            raise ConfigError("the share of the second picture is out of range", got=share, expected="0 … 1")

    @property
    def is_mix(self) -> bool:
        """Whether images are of a text and like a picture: `share` of it, a half if that is not said."""
        return bool(self.text) and self.like is not None

    @property
    def mixed(self) -> float:
        """Share of the picture in a mix."""
        return 0.5 if self.share is None else self.share

    @property
    def is_path(self) -> bool:
        """Whether each image has a condition of its own, on the way from one picture to another."""
        return self.between is not None and self.share is None

    def numbers(self, positions: range) -> Sequence[int]:
        """Numbers of the images at these positions: image i's noise depends on the seed and its number alone."""
        return [0 if self.is_path else self.first + position for position in positions]

    @property
    def condition(self) -> dict[str, str]:
        """The condition as provenance records it: names and digests."""
        more = (self.edit, self.upscale)
        return {
            **self.told,
            **{name: value for one in more if one is not None for name, value in one.condition.items()},
        }

    @property
    def told(self) -> dict[str, str]:
        """The condition without the edit."""
        named = {} if self.class_name is None else {"class": self.class_name}
        if self.text:
            mixed = {"like": self.like.sha256, "share": str(self.mixed)} if self.like is not None else {}
            return {**named, "text": "\n".join(self.text), **mixed}
        if self.like is not None:
            return {"like": self.like.sha256}
        if self.between is not None:
            digests = {"between": " ".join(picture.sha256 for picture in self.between)}
            return digests if self.share is None else {**digests, "share": str(self.share)}
        if self.representation is not None:
            floats = pack(f"={len(self.representation)}f", *self.representation)
            return {"representation": hashlib.sha256(floats).hexdigest()}
        return named
