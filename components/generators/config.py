"""What every generator's config says. Imports without torch."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from components.conditions.config import ConditionConfig, Port
from components.config import Config
from components.diffusion.schedule import Prediction, ScheduleConfig
from components.fields import FieldSpec, find_field
from components.target import TargetSpec, data_fields


class GeneratorData(Config):
    """Facts of the cache that a generator is built for; they travel in its config.json."""

    target: TargetSpec
    """The space that the codec encodes images to."""
    dim: int
    """Dimension of the representations."""
    classes: tuple[str, ...] | None
    """Names of the classes in index order; None without labels."""
    more: tuple[FieldSpec, ...] = ()
    """Further fields that conditions read."""

    @property
    def fields(self) -> tuple[FieldSpec, ...]:
        """What conditions may read."""
        return (*data_fields(self.dim, self.target, self.classes), *self.more)


class GeneratorConfig(Config):
    """A generator: its kind, its conditions, its sizes."""

    sampled_by: ClassVar[Literal["diffusion", "masked", "direct"]]
    """Kind of the sampling options that it takes."""
    ports: ClassVar[tuple[Port, ...]]
    """Ports of its network."""
    conditions: tuple[ConditionConfig, ...]
    """What it is conditioned on; [] is unconditional."""

    def data(self, fields: Sequence[FieldSpec], target: TargetSpec) -> GeneratorData:
        """What this generator is built for, of a cache with these fields. Raises: ConfigError for one that it lacks."""
        known = {field.name: field for field in fields}
        dim, classes = known["representation"].size, known["class"].names or None
        usual = {field.name for field in data_fields(dim, target, classes)}
        read = dict.fromkeys(condition.field for condition in self.conditions if not condition.inpaints)
        more = tuple(find_field(fields, name) for name in read if name not in usual)
        return GeneratorData(target=target, dim=dim, classes=classes, more=more)

    @property
    def can_guide(self) -> bool:
        """Whether training drops a condition, so that there is something to guide away from."""
        return any(condition.drop_prob > 0 and not condition.inpaints for condition in self.conditions)

    def condition(self, kind: str) -> Any:
        """The condition of this kind, None without it."""
        return next((condition for condition in self.conditions if condition.kind == kind), None)

    def uses(self, port: Port) -> bool:
        """Whether a condition enters by this port."""
        return any(port in condition.ports for condition in self.conditions)

    @model_validator(mode="before")
    @classmethod
    def _current(cls, value: Any) -> Any:
        if isinstance(value, dict) and "condition" in value:
            raise ValueError(f"`condition` is a list now; write {_as_list(value['condition'])}")
        if isinstance(value, dict) and "class_conditional" in value:
            told = "[{kind: class, port: vector, drop_prob: 0.0, missing: skip}]"
            raise ValueError(
                "class_conditional is one of the conditions now; write "
                f"conditions: {told if value['class_conditional'] else '[]'} instead, and "
                "prediction: x0, min_snr: null, variance: fixed"
            )
        return value

    @model_validator(mode="after")
    def _enter(self) -> Self:
        names = [condition.name for condition in self.conditions]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"conditions has {twice[0]} twice; keep one")
        for condition in self.conditions:
            if lacked := [port for port in condition.ports if port not in self.ports]:
                raise ValueError(
                    f"{getattr(self, 'kind', 'this network')} has no {lacked[0]} port for the condition "
                    f"{condition.name}; it has {' and '.join(self.ports)}"
                )
        return self


class DiffusionConfig(GeneratorConfig):
    """A generator by diffusion, whatever the network."""

    sampled_by = "diffusion"
    schedule: ScheduleConfig
    """Forward process (DiT, ADM: linear; LDM, RCG's RDM: sqrt_linear; 1000 times)."""
    prediction: Prediction
    """What the network outputs: the noise eps, the velocity v, or the clean target x0 (RCG's RDM)."""
    min_snr: float | None = Field(gt=0)
    """Clip of the loss's signal-to-noise weight (min-SNR-gamma; 5 in the paper); null: plain mean squared error."""
    weighting: Literal["plain", "v", "p2"] = Field(default="plain", exclude_if=lambda weighting: weighting == "plain")
    """Weight of the squared errors. plain: 1 at every time; v: as if v were predicted, but at most 10;
    p2: 1 / (1 + snr), which is alpha-bar's complement (Corgi, with prediction x0)."""
    variance: Literal["fixed", "learned"]
    """Reverse variance. learned: the network says where it lies between its bounds, trained on the variational bound
    beside the mean squared error (DiT, ADM); read by the ancestral sampler."""

    @model_validator(mode="after")
    def _weighs_once(self) -> Self:
        if self.weighting != "plain" and self.min_snr is not None:
            raise ValueError(
                f"weighting {self.weighting} and min_snr are two weights; set min_snr: null, or weighting: plain"
            )
        low_res = self.condition("low_res")
        if low_res is not None and low_res.residual and self.prediction != "x0":
            raise ValueError(
                f"a residual low_res is added to a guess of x0, not of {self.prediction}; set prediction: x0"
            )
        return self

    def outputs(self, n: int) -> int:
        """Channels that the network puts out for targets of n channels."""
        return 2 * n if self.variance == "learned" else n


class DirectConfig(GeneratorConfig):
    """A generator without noise: a regression with a contrastive loss, whatever the network."""

    sampled_by = "direct"
    contrast: float = Field(ge=0)
    """Weight of the contrastive loss beside the mean squared error (ECLIPSE: 0.2); 0: the regression alone."""
    temperature: float = Field(gt=0)
    """Of the cosines in it."""
    n_rivals: int = Field(ge=1, le=65_536)
    """Representations of training rows with which each row's own has to compete."""


class MaskConfig(Config):
    """Distribution of the share of tokens that is masked: a normal, truncated to [least, 1]."""

    mean: float = Field(gt=0, lt=1)
    """Mean of the normal before it is truncated."""
    std: float = Field(gt=0)
    """Its standard deviation."""
    least: float = Field(gt=0, lt=1)
    """Smallest share; as many tokens are left out of the encoder altogether."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(mean=0.75, std=0.25, least=0.5)


class MaskedConfig(GeneratorConfig):
    """A generator of masked tokens, whatever the network."""

    sampled_by = "masked"
    drop_prob: float = Field(ge=0, lt=1)
    """Dropout of embeddings, attention weights, attention outputs and MLPs (0..1)."""
    label_smoothing: float = Field(ge=0, lt=1)
    """Share of the target probability that is spread over all codes."""
    mask: MaskConfig


def _as_list(condition: Any) -> str:
    """What the single condition of earlier params is called now."""
    kind = condition.get("kind") if isinstance(condition, dict) else None
    drop = condition.get("drop_prob", 0.0) if isinstance(condition, dict) else 0.0
    more = {
        "representation": ", project: true",
        "class": ", missing: 'null'",
        "cluster": f", n_clusters: {condition.get('n_clusters')}" if isinstance(condition, dict) else "",
    }
    listed = f"{{kind: {kind}, port: vector, drop_prob: {drop}{more[kind]}}}" if kind in more else ""
    return f"conditions: [{listed}]"
