"""A system: generators in order; what one makes is a condition of the next. Paper: 2312.03701 (RCG).

z: representation, x: target of the last generator.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from pydantic import Field, ValidationError
from torch import Tensor

from components.base import Batch
from components.bundle.edits import blended, read_edit, read_square
from components.bundle.request import MAX_IMAGES, Edit, Picture, Request, Upscale
from components.codecs.base import Codec
from components.codecs.config import NoneConfig
from components.codecs.none import NoneCodec
from components.conditions.frequencies import sample_index
from components.config import Config, added
from components.errors import ConfigError
from components.fields import TEXT_FIELDS, mask_name, of_fields
from components.generators.base import Generator
from components.generators.sampling import AnySampling, Sampling
from components.generators.upsampling import LARGE, LARGE_KNOWN, UpsamplerSampling, as_images, check_noise, upsampled
from components.guides.base import NoiseAware, put_beside
from components.guides.classifier import Classifier
from components.images.config import DecodeRecipe
from components.rng import Rng, RowRng, derive_seed
from components.target import KNOWN

_PICTURE = "picture"
"""Entry of a batch, where decoding changes known pixels: a given picture's, and beside it which of them are kept."""


_LIKE = "like"
"""The representation of a picture that is mixed with the one of a text."""


class SystemSampling(Config):
    """How a system samples."""

    seed: int = Field(ge=0)
    """Seed of a request that names none."""
    batch_size: int = Field(ge=1)
    """Images sampled together; part of the images' bits."""
    rdm: Sampling | None
    """Options of the representation generator; null for a system without one."""
    pixels: Sampling
    """Options of the pixel generator."""
    upsampler: UpsamplerSampling | None = added()
    """Those of the upsampler; null for a system without one."""

    def with_request(self, request: Request, guided: str | None = None) -> "SystemSampling":
        """These options with what the request asks otherwise. `guided`: the generator that has a guide.

        Raises: ConfigError for a value that cannot be, or the scale of a guide that is not there.
        """
        repaint = request.edit.repaint if request.edit is not None else None
        asked = {"guidance": request.guidance, "steps": request.steps, "repaint": repaint}
        changed: dict[str, dict[str, Any]] = {
            "pixels": {name: value for name, value in asked.items() if value is not None}
        }
        if request.rdm_guidance is not None:
            if self.rdm is None:
                raise ConfigError("this model has no representation generator to guide", got=request.rdm_guidance)
            changed["rdm"] = {"guidance": request.rdm_guidance}
        if request.guide_scale is not None:
            options = changed.setdefault(guided or "", {})
            options["guide"] = self._rescaled(request.guide_scale, guided)
        try:
            made = {name: self._changed(getattr(self, name), options) for name, options in changed.items()}
        except ValidationError as error:
            wrong = error.errors()[0]
            name = wrong["loc"][-1] if wrong["loc"] else "number"
            raise ConfigError(f"cannot sample with this {name}", got=wrong["input"], expected=wrong["msg"]) from error
        upsampler, upscale = self.upsampler, request.upscale
        if upsampler is not None and upscale is not None and upscale.noise is not None:
            upsampler = upsampler.model_copy(update={"noise": upscale.noise})
        batch_size = request.batch_size or self.batch_size
        return self.model_copy(update={**made, "batch_size": batch_size, "upsampler": upsampler})

    def follows(self, name: str | None) -> bool:
        """Whether the generator of this name follows its guide."""
        return name is not None and getattr(getattr(self, name), "guide", None) is not None

    def _rescaled(self, scale: float, guided: str | None) -> dict[str, Any] | None:
        """Options of the guide with another scale, in the interval that they have."""
        if guided is None:
            fix = "leave the scale out, or train a guide: section guide of params.yaml"
            raise ConfigError("this model has no guide", got=f"scale {scale}", fix=fix)
        own = getattr(getattr(self, guided), "guide", None)
        return {"scale": scale, "interval": own.interval if own else None} if scale != 0 else None

    @staticmethod
    def _changed(options: AnySampling, changed: dict[str, Any]) -> AnySampling:
        return type(options).model_validate(options.model_dump() | changed)


class System:
    """Generators in order, with the codec that decodes what the last one makes.

    Image i of a seed depends on the seed, i and the split into micro-batches alone. `represent`: picture -> (1, dim)
    representation; None where there is no encoder. `recipe`: how given pictures are decoded; None where none can be.
    `embed`: texts -> their fields; None where there is no text encoder.
    """

    def __init__(  # noqa: PLR0913  (one parameter per part)
        self,
        *,
        rdm: Generator | None,
        pixels: Generator,
        codec: Codec,
        sampling: SystemSampling,
        represent: Callable[[Picture], Float[Tensor, "1 dim"]] | None = None,
        recipe: DecodeRecipe | None = None,
        guide: NoiseAware | None = None,
        upsampler: Generator | None = None,
        embed: Callable[[Sequence[str]], Batch] | None = None,
    ) -> None:
        needed = rdm is not None and "representation" in pixels.required
        self.generators: dict[str, Generator] = {"rdm": rdm, "pixels": pixels} if rdm and needed else {"pixels": pixels}
        self.pixels, self.codec, self.sampling, self._represent = pixels, codec, sampling, represent
        self.device, self._recipe, self.upsampler = next(pixels.parameters()).device, recipe, upsampler
        self._embed = embed
        self.guide, self.guided = guide, None if guide is None else guide.config.guides
        if guide is not None:
            put_beside(guide, self._guided_generator(guide))

    def _guided_generator(self, guide: NoiseAware) -> Generator:
        """Raises: ConfigError where this system does not have it."""
        name = guide.config.guides
        if name not in self.generators:
            raise ConfigError(
                f"the guide is one of the {name}, which this system does not sample",
                got=guide.config.kind,
                expected=" or ".join(self.generators),
            )
        return self.generators[name]

    def options(self, request: Request) -> SystemSampling:
        """How a request is sampled. Raises: ConfigError for a value that cannot be."""
        return self.sampling.with_request(request, self.guided)

    def _beside(self, name: str) -> Iterator[str]:
        """Fields that a generator samples with besides its conditions."""
        if self.generators[name].makes == "target":
            yield KNOWN
        if name == self.guided and self.guide is not None:
            yield self.guide.field

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Class names that a request may give; None for a system without a class condition and without a guide."""
        if self._class_frequencies is None:
            return self.guide.data.classes if self.leads_to("class") and self.guide is not None else None
        return self.pixels.data.classes

    def leads_to(self, field: str) -> bool:
        """Whether there is a guide to it."""
        return self.guide is not None and self.guide.field == field

    def _check_led(self, field: str, got: str, options: SystemSampling) -> None:
        """Raises: ConfigError where a guide alone can answer a request, and is off."""
        if self.leads_to(field) and not options.follows(self.guided):
            fix = "give the guide a scale: --guide-scale 2"
            raise ConfigError(f"this model is led to a {field} by its guide alone, which is off", got=got, fix=fix)

    @property
    def reads(self) -> bool:
        """Whether a request may give a text."""
        return self._embed is not None and (bool(self._readers) or self.leads_to("text"))

    @property
    def _readers(self) -> list[Generator]:
        """Generators with a condition on texts."""
        every = [*self.generators.values(), *([] if self.upsampler is None else [self.upsampler])]
        return [generator for generator in every if set(TEXT_FIELDS) & set(generator.conditions)]

    @property
    def _class_frequencies(self) -> Float[Tensor, " classes"] | None:
        found = (generator.class_frequencies for generator in self.generators.values())
        return next((frequencies for frequencies in found if frequencies is not None), None)

    def sample(self, request: Request) -> Float[Tensor, "n 3 px px"]:
        """Images in [0, 1]. Raises: ConfigError for a request that this system cannot answer; DataError."""
        if request.n > MAX_IMAGES:
            raise ConfigError("so many images are not held in memory", got=request.n, expected=f"at most {MAX_IMAGES}")
        return torch.cat([self.images(batch) for batch in self.batches(request)])

    def batches(self, request: Request, positions: range | None = None) -> Iterator[Batch]:
        """sample() micro-batch by micro-batch, before decoding; only those in `positions`, which begins with one."""
        draw = self.sampler(request)
        for here in self.split(request, positions):
            yield draw(here)

    def split(self, request: Request, positions: range | None = None) -> Iterator[range]:
        """Positions of each micro-batch of the request; only those in `positions`, which begins with one."""
        size = self.options(request).batch_size
        whole = range(request.n)
        return (whole[start : start + size] for start in (whole if positions is None else positions)[::size])

    def sampler(self, request: Request) -> Callable[[range], Batch]:
        """Draws the micro-batch at these positions; holds nothing of the request's size.

        Raises: ConfigError for a request that this system cannot answer, before anything is drawn; DataError.
        """
        options = self.options(request)
        given = self._given(request, options)
        texts = self._read(request.text, options) if request.text else {}
        if request.class_name is not None and self._class_frequencies is None:
            self._check_led("class", f"class {request.class_name}", options)
        if request.upscale is not None:
            given = given | self._small(request.upscale, request.n)
        if request.edit is not None:
            large = self.upsampler if request.upscale is not None else None
            given = self._edited(request.edit, request.n, own=not given and not texts, large=large) | given

        def draw(here: range) -> Batch:
            rows = {field: values[here.start : here.stop] for field, values in given.items()}
            if texts:
                which = torch.arange(here.start, here.stop) // (request.n // len(request.text))
                rows |= {field: values[which] for field, values in texts.items()}
            return self.rows(request, here, given=rows, options=options)

        return draw

    @torch.no_grad()
    def rows(self, request: Request, positions: range, *, given: Batch, options: SystemSampling | None = None) -> Batch:
        """One micro-batch, these positions of the request: the given fields of its rows, then those that are made.

        `options`: the system's with the request's; None: worked out here.
        """
        numbers = request.numbers(positions)
        batch: dict[str, Tensor] = {field: rows.to(self.device) for field, rows in given.items()}
        options = options or self.options(request)
        frequencies = self._class_frequencies
        if isinstance(self.guide, Classifier) and frequencies is None and options.follows(self.guided):
            frequencies = self.guide.frequencies
            if "representation" in batch and "class" not in batch:  # what is asked for is that, and no class
                batch["class"] = torch.full((len(numbers),), -1, device=self.device)
        if frequencies is not None and "class" not in batch and "target" not in batch:
            batch["class"] = sample_index(frequencies, self._rng(request.seed, numbers, "class"))
        for name, generator in self.generators.items():
            if generator.makes in batch or "target" in batch:
                continue
            read = of_fields(batch, (*generator.conditions, *self._beside(name)))
            rng = self._rng(request.seed, numbers, name)
            batch[generator.makes] = generator.sample(read, getattr(options, name), rng)
            if generator.makes == "representation" and _LIKE in batch:
                batch["representation"] = (1 - request.mixed) * batch["representation"] + request.mixed * batch[_LIKE]
        if request.upscale is not None and self.upsampler is not None and options.upsampler is not None:
            rng, how = self._rng(request.seed, numbers, "upsampler"), options.upsampler
            batch[LARGE] = upsampled(self.upsampler, self.images(batch), how, rng, batch=batch)
        return batch

    @torch.no_grad()
    def images(self, batch: Batch) -> Float[Tensor, "b 3 px px"]:
        """The decoded target of a batch, in [0, 1]; the known pixels of a given picture are its own, exactly.

        Where it was made larger: the large image.
        """
        if LARGE in batch:
            return as_images(batch[LARGE])
        images, spec = self.codec.decode(batch["target"]), self.codec.spec
        if _PICTURE not in batch:
            return images
        return blended(images, batch[_PICTURE], batch[mask_name(_PICTURE)], reach=spec.image_px // spec.shape[-1])

    def class_index(self, name: str) -> int:
        """Raises: ConfigError for an unknown class or a system without classes."""
        if self.classes is None:
            fix = "leave the class out, or train with a class condition"
            raise ConfigError("this model does not take a class", got=name, fix=fix)
        if name not in self.classes:
            raise ConfigError("unknown class", got=name, expected=", ".join(self.classes[:20]))
        return self.classes.index(name)

    def _given(self, request: Request, options: SystemSampling) -> dict[str, Tensor]:
        """The fields that the request itself gives, one row for each image. Raises: ConfigError, DataError."""
        named = request.class_name
        given = {} if named is None else {"class": torch.tensor([self.class_index(named)]).expand(request.n)}
        return given | self._represented(request, options)

    def _represented(self, request: Request, options: SystemSampling) -> dict[str, Tensor]:
        """A representation that the request gives, or that of a picture to be mixed in; none for a class or a text."""
        if request.like is None and request.between is None and request.representation is None:
            return {}
        if "representation" not in self.pixels.conditions:
            self._check_led("representation", next(name for name in request.told if name != "class"), options)
        if "representation" not in (*self.pixels.conditions, *self._beside("pixels")):
            raise ConfigError(
                "this pixel generator has no condition on representations",
                got=f"conditions: {', '.join(self.pixels.conditions) or 'none'}",
                fix="use a bundle whose pixel generator is trained with a condition of kind representation",
            )
        if request.representation is not None:
            z = torch.tensor([request.representation], dtype=torch.float32)
        elif request.like is not None:
            z = self._seen(request.like)
            if request.is_mix and "rdm" not in self.generators:
                fix = "give the text or the picture alone"
                raise ConfigError("this model makes no representation of a text to mix with a picture's", fix=fix)
            if request.is_mix:
                return {_LIKE: z.expand(request.n, -1)}
        elif request.between is not None:
            share = torch.linspace(0, 1, request.n)[:, None] if request.share is None else request.share
            a, b = map(self._seen, request.between)
            z = (1 - share) * a + share * b
        return {"representation": z.expand(request.n, -1)}

    def _small(self, upscale: Upscale, n: int) -> dict[str, Tensor]:
        """The target of a picture that is given to be made larger.

        Raises: ConfigError without an upsampler, or for noise that it was not trained with; DataError.
        """
        if self.upsampler is None:
            fix = "add the section upsampler to params.yaml (docs/how-to/upscale.md shows one), and make it again"
            raise ConfigError("this bundle has no upsampler, so it cannot make images larger", fix=fix)
        check_noise(upscale.noise, self.upsampler.config)
        if upscale.image is None:
            return {}
        if self._recipe is None:
            raise ConfigError("this system cannot read pictures", fix="use a bundle")
        image = read_square(upscale.image, self._recipe, self.codec.spec.image_px)
        target = self.codec.encode(image.to(self.device)).cpu()
        return {"target": target.expand(n, *target.shape[1:])}

    def _edited(self, edit: Edit, n: int, *, own: bool, large: Generator | None) -> dict[str, Tensor]:
        """What is known of the target and of the `large` image, and, if `own`, the picture's own representation.

        A codec sees the picture with what is known drawn over the rest; what decoding changes is put right in images().
        Raises: ConfigError, DataError.
        """
        if self._recipe is None:
            raise ConfigError("this system cannot read pictures", fix="use a bundle")
        seen, spec = read_edit(edit, self._recipe, self.codec.spec.image_px), self.codec.spec
        h, w = spec.shape[-2:]
        shown = seen.image if spec.space == "pixels" else seen.drawn_over()
        given = {KNOWN: self.codec.encode(shown.to(self.device)), mask_name(KNOWN): seen.on_grid((h, w))}
        if spec.space != "pixels":
            given |= {_PICTURE: seen.image, mask_name(_PICTURE): seen.known}
        if large is not None:
            channels, px, _ = large.spec.shape
            fine = read_edit(edit, self._recipe, px)
            pixels = NoneCodec(NoneConfig(kind="none", channels=1 if channels == 1 else 3, px=px)).encode(fine.image)
            given |= {LARGE_KNOWN: pixels, mask_name(LARGE_KNOWN): fine.known}
        if own and not edit.free and "representation" in self.pixels.conditions:
            if self._represent is None:
                fix = "sample one: --free; or set bundle.with_encoder: true and make it again"
                raise ConfigError("this bundle has no encoder, so it has no representation of the picture", fix=fix)
            given["representation"] = self._represent(edit.image)
        return {name: rows.cpu().expand(n, *rows.shape[1:]) for name, rows in given.items()}

    def _seen(self, picture: Picture) -> Float[Tensor, "1 dim"]:
        if self._represent is None:
            fix = "set bundle.with_encoder: true and make it again"
            raise ConfigError("this bundle has no encoder, so it cannot look at pictures", fix=fix)
        return self._represent(picture).cpu()

    def _read(self, texts: Sequence[str], options: SystemSampling) -> Batch:
        """The fields of texts, one row for each. Raises: ConfigError."""
        readers = self._readers
        if not readers:
            self._check_led("text", texts[0], options)
        if not readers and not self.leads_to("text"):
            fix = "leave the text out, or train with a condition of kind text"
            raise ConfigError("this model does not take a text", got=texts[0], fix=fix)
        if self._embed is None:
            fix = "make the bundle again, from params with a section text"
            raise ConfigError("this bundle has no text encoder, so it cannot read", got=texts[0], fix=fix)
        fields = self._embed(texts)
        is_there = next(fields[mask_name(name)] for name in ("text", "ids") if name in fields)
        if any(set(TEXT_FIELDS) & set(one.required) for one in readers) and not bool(is_there.all()):
            fix = "write something, or train with drop_prob above 0"
            raise ConfigError("an empty text is the null, which this model has not learned", fix=fix)
        return fields

    def _rng(self, seed: int, numbers: Sequence[int], stream: str) -> Rng:
        return RowRng([derive_seed(seed, stream, i) for i in numbers], device=self.device)
