"""The root of params.yaml: every number that changes an artifact. The only reader of that file.

Configs import without torch, so checking them costs a command a fraction of a second.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError, model_validator

from components.conditions.config import FieldConditionConfig
from components.config import Config
from components.diffusion.bases.config import NORMAL, GaussiansConfig, NearestConfig, is_normal
from components.encoders.config import EncoderModel, width_of
from components.errors import ConfigError
from components.fields import TEXT_FIELDS
from components.generators.config import DiffusionConfig
from components.generators.sampling import AnySampling, Beside, DiffusionSampling, sampling_fault
from components.guides.config import AnyGuide, PixelGuideConfig
from components.metrics.config import FeatureConfig
from components.pixels.base import PixelDiffusionConfig
from flows.pipeline.policy import GateParams, RetrainParams
from flows.stages.bundle.params import BundleParams
from flows.stages.codec.params import CodecParams
from flows.stages.collect.params import CollectParams
from flows.stages.encode.params import EncodeParams
from flows.stages.encoder.params import EncoderParams
from flows.stages.evaluate.params import EvaluateParams
from flows.stages.guide.params import GuideParams
from flows.stages.pixels.params import PixelsParams
from flows.stages.rdm.params import RdmParams
from flows.stages.sample.params import SampleParams
from flows.stages.text.params import TextParams
from flows.stages.upsampler.params import UpsamplerParams
from flows.yaml_files import read_yaml


class Params(Config):
    """params.yaml: one section per stage, then what is decided about the finished model."""

    collect: CollectParams
    encoder: EncoderParams
    codec: CodecParams
    text: TextParams | None = None
    """null, or no such section: no stage text, where nothing reads captions."""
    encode: EncodeParams
    rdm: RdmParams | None
    """null: no stage rdm, for a pixel generator without a condition on representations."""
    pixels: PixelsParams
    guide: GuideParams | None = None
    """null, or absent: no stage guide; sampling then follows none."""
    upsampler: UpsamplerParams | None = None
    """null, or no such section: no stage upsampler, nothing makes images larger."""
    sample: SampleParams
    evaluate: EvaluateParams
    bundle: BundleParams
    gate: GateParams
    retrain: RetrainParams

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        checks = (
            *(_dimensions, _representations, _requests, _spaces, _samplings),
            *(_guides, _sides, _labels, _texts, _upsampled, _judged),
        )
        faults = [fault for check in checks for fault in check(self)]
        if faults:
            raise ValueError("; ".join(faults))
        return self


def _dimensions(params: Params) -> Iterator[str]:
    if params.rdm is None:
        return
    encoder, rdm = width_of(params.encoder.model), params.rdm.model.dim
    if encoder != rdm:
        yield f"the encoder's dimension is {encoder} but rdm.model.dim is {rdm}; set rdm.model.dim: {encoder}"


def _representations(params: Params) -> Iterator[str]:
    """Representations are made and sampled exactly where the pixel generator is conditioned on them."""
    sample, needed = params.sample, params.pixels.model.condition("representation") is not None
    sections = {"rdm": params.rdm, "sample.representations": sample.representations, "sample.rdm": sample.rdm}
    wrong = [name for name, value in sections.items() if (value is not None) != needed]
    if wrong and needed:
        yield f"pixels.model is conditioned on representations, but {', '.join(wrong)} is null; presets/ show it"
    elif wrong:
        fix = ", ".join(f"{name}: null" for name in wrong)
        yield f"pixels.model has no condition representation, so nothing reads representations; set {fix}"


def _requests(params: Params) -> Iterator[str]:
    """What a generator needs to sample, a request can give: a representation, a class and a text."""
    for stage, section in (("pixels", params.pixels), ("rdm", params.rdm)):
        for condition in section.model.conditions if section is not None else ():
            if condition.field in TEXT_FIELDS or not isinstance(condition, FieldConditionConfig):
                continue
            if condition.missing == "skip":
                yield (
                    f"{stage}.model needs the field {condition.field} to sample, which no request gives; "
                    f"set missing: 'null' for {condition.name}"
                )


def _spaces(params: Params) -> Iterator[str]:
    codec, kind = params.codec.model, params.pixels.model.kind
    space = getattr(codec, "space", "pixels")
    if (space == "tokens") != (kind == "mage"):
        fix = (
            "a vqgan codec with space: tokens" if kind == "mage" else "codec none, or a vqgan codec with space: latents"
        )
        yield f"pixels.model.kind is {kind} but codec.model gives {space}; {kind} needs {fix}"


def _samplings(params: Params) -> Iterator[str]:
    """Options that cannot sample are refused before anything starts."""
    for stage, section in (("rdm", params.rdm), ("pixels", params.pixels)):
        sampling = getattr(params.sample, stage)
        if section is not None and sampling is not None:
            guided = params.guide is not None and params.guide.model.guides == stage
            beside = Beside(earlier=section.earlier is not None, guide=guided)
            if fault := sampling_fault(f"sample.{stage}", sampling, section.model, beside):
                yield fault


def _guides(params: Params) -> Iterator[str]:
    """A guide fits the generator that it guides."""
    if params.guide is None:
        return
    guide, section = params.guide.model, getattr(params, params.guide.model.guides)
    if section is None:
        yield f"guide.model.kind {guide.kind} guides the {guide.guides}, but {guide.guides} is null; set guide: null"
        return
    model = section.model
    if not isinstance(model, DiffusionConfig):
        yield f"a guide leads a diffusion generator, but pixels.model.kind is {model.kind}; set guide: null"
        return
    for name in ("schedule", "latents"):
        mine, its = getattr(guide, name, None), getattr(model, name, None)
        if mine is not None and mine != its:
            yield f"guide.model.{name} ({mine}) is not that of {guide.guides}.model ({its}); set it equal"
    if not is_normal(getattr(model, "base", NORMAL)):
        yield f"a guide learns noise that ends at N(0, I), and {guide.guides}.model.base is another; set guide: null"
    yield from _recognized(params, guide)
    if guide.guides == "pixels" and params.sample.representations == "oracle" and _follows(params.sample.pixels):
        yield "representations of real images (oracle) leave no class to guide to; set sample.pixels.guide: null"


def _recognized(params: Params, guide: AnyGuide) -> Iterator[str]:
    """What a guide recognizes is there, and sampling on its own knows a class alone to be led to."""
    if guide.recognizes == "class":
        if params.collect.labels == "none":
            yield "a guide tells classes apart, but collect.labels is none; set collect.labels, or guide: null"
        return
    if guide.recognizes == "text" and params.text is None:
        yield "guide.model recognizes text, but text is null; presets/digits-text.yaml shows the section"
    options = getattr(params.sample, guide.guides)
    if _follows(options):
        yield (
            f"sample.{guide.guides}.guide leads to classes, and guide.model recognizes {guide.recognizes}; set it to "
            "null, and ask the bundle: rcg sample --guide-scale"
        )


def _follows(sampling: AnySampling) -> bool:
    return isinstance(sampling, DiffusionSampling) and sampling.guide is not None


def _sides(params: Params) -> Iterator[str]:
    codec = params.codec.model
    models = {"pixels": params.pixels.model, "guide": params.guide.model if params.guide is not None else None}
    for stage, model in models.items():
        if isinstance(model, PixelDiffusionConfig | PixelGuideConfig):
            try:
                model.check_side(getattr(codec, "side", codec.px))
            except ConfigError as error:
                yield f"codec.model and {stage}.model do not fit: {error.what} (got {error.got}); {error.fix}"


def _labels(params: Params) -> Iterator[str]:
    if params.collect.labels != "none":
        return
    for stage, section in (("pixels", params.pixels), ("rdm", params.rdm)):
        if section is not None and section.model.condition("class") is not None:
            yield f"{stage}.model is conditioned on the class but collect.labels is none; set collect.labels"


def _upsampled(params: Params) -> Iterator[str]:
    """An upsampler starts where the pixel generator ends."""
    small, section = params.codec.model.px, params.upsampler
    if section is not None and (section.px <= small or section.px % small):
        fix = f"set upsampler.px: {2 * small}"
        yield f"upsampler.px is {section.px}, but images of {small} pixels are enlarged by whole factors; {fix}"


def _judged(params: Params) -> Iterator[str]:
    """The network that conditions the generator judges it only where that is meant."""
    features, weights = params.evaluate.features, getattr(params.encoder.model, "weights", None)
    if isinstance(features, FeatureConfig) or features.allow_same or weights is None:
        return
    if params.rdm is not None and weights.sha256.lower() == features.network.weights.sha256.lower():
        yield (
            "evaluate.features.network is the encoder that conditions the generator, which flatters its pictures; name "
            "another network, or set evaluate.features.allow_same: true"
        )


def _texts(params: Params) -> Iterator[str]:
    """What a condition reads of captions, the stage `text` makes."""
    text = params.text
    for stage, section in (("pixels", params.pixels), ("rdm", params.rdm), ("upsampler", params.upsampler)):
        read = {condition.field for condition in section.model.conditions} if section is not None else set()
        if text is None and read & set(TEXT_FIELDS):
            yield f"{stage}.model is conditioned on text, but text is null; presets/digits-text.yaml shows the section"
            continue
        if text is None:
            continue
        if "tokens" in read and not text.states:
            yield f"{stage}.model reads the states of tokens, which text does not give; set text.states: true"
        if "text" in read and text.encoder is None:
            yield f"{stage}.model reads the embedding of captions, which text does not give; set text.encoder"
        if "ids" in read and text.bpe is None:
            fix = "set text.bpe: {file: null, n_ids: 512, max_tokens: 32}"
            yield f"{stage}.model reads the ids of tokens, which text does not give; {fix}"
    if text is not None and text.joint is not None and text.joint.train is None and text.joint.weights is None:
        yield from _shared(text, params.encoder.model)
    base = getattr(params.rdm.model, "base", None) if params.rdm is not None else None
    if text is not None and isinstance(base, GaussiansConfig) and isinstance(base.choice, NearestConfig):
        yield from _compared(text, base.choice)


def _shared(text: TextParams, image: EncoderModel) -> Iterator[str]:
    """A space that is not trained is that of the two towers of one CLIP."""
    why = "text.joint.train is null, so the encoders have to share a space, but"
    if text.encoder is None or text.encoder.kind == "words":
        yield f"{why} words has no image tower; give text.joint.train a training"
    elif image.reduce is not None:
        yield f"{why} encoder.model.reduce changes that of the images; set it to null"
    elif image.kind == "clip" and image.output != "projector":
        yield f"{why} encoder.model.output is {image.output}; set it to projector"
    elif text.encoder.kind == image.kind == "clip" and text.encoder.weights != image.weights:
        yield f"{why} encoder.model.weights and text.encoder.weights are different files; name one file"


def _compared(text: TextParams, choice: NearestConfig) -> Iterator[str]:
    """A caption is compared with representations, so it has to lie in their space."""
    fix = "set text.joint with dim: null, or choose by: predicted"
    if choice.field != "text":
        return
    if text.joint is not None and text.joint.dim is not None:
        yield f"rdm.model.base.choice is nearest, but text.joint has a space of its own; {fix}"
    elif text.joint is None and getattr(text.encoder, "pooling", None) != "model":
        yield f"rdm.model.base.choice is nearest, but text.encoder has no image tower, so no common space; {fix}"


def read_params(path: Path) -> dict[str, Any]:
    """params.yaml as plain data. Raises: ConfigError when it is absent or not a mapping."""
    if not path.is_file():
        raise ConfigError(
            f"{path} does not exist", fix="run this in the project folder, or `rcg preset use handwriting` makes one"
        )
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold one section per stage", got=type(data).__name__)
    return data


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check the whole file. Raises: ConfigError naming every wrong key at once."""
    return check_params(read_params(path), str(path))


def load_sections(path: Path) -> dict[str, Any]:
    """What load_params() makes of the file, as plain data."""
    return load_params(path).model_dump(mode="json")


def check_params(data: Mapping[str, Any], name: str) -> Params:
    """Validate plain data as Params. Raises: ConfigError naming every wrong key at once."""
    try:
        return Params.model_validate(data)
    except ValidationError as error:
        raise ConfigError(
            f"{name} is wrong in {error.error_count()} place(s):\n" + "\n".join(map(_line, error.errors()))
        ) from error


def check_section(stage: str, data: Mapping[str, Any]) -> Any:
    """One stage's section, validated on its own. Raises: ConfigError naming every wrong key at once."""
    section: Any = Params.model_fields[stage].annotation
    try:
        return TypeAdapter(section).validate_python(data)
    except ValidationError as error:
        lines = "\n".join(map(_line, error.errors()))
        raise ConfigError(f"section {stage} is wrong in {error.error_count()} place(s):\n{lines}") from error


_GONE = {"bundle.sampling": "the bundle samples as the stage `sample` does, whose images are evaluated"}
"""Keys of earlier params, and what replaces them."""


def _line(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "(cross-check)"
    if where in _GONE:
        return f"  {where}: {_GONE[where]}; remove it"
    if error["type"] == "extra_forbidden":
        return f"  {where}: unknown key; remove it or correct its spelling"
    if error["type"] == "missing":
        return f"  {where}: missing; nothing that changes an artifact has a default, so add it (presets/ show a value)"
    message = error["msg"].removeprefix("Value error, ")
    if isinstance(error["input"], Mapping):
        return f"  {where}: {message}"
    return f"  {where}: {message} (got {error['input']!r})"
