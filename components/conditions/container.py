"""All conditions of a generator: a batch -> what enters the network, in training and in sampling."""

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from components.base import Batch
from components.conditions.base import Embedder
from components.conditions.config import ConditionConfig
from components.conditions.embedders import Classes, embedder
from components.conditions.ports import Both, Embedded, Ports, States
from components.errors import ConfigError
from components.fields import FieldSpec
from components.rng import Rng


class HasPorts(Protocol):
    """What a network says of its ports; a width of None, or no extra channels, means that it lacks the port."""

    @property
    def vector_width(self) -> int | None: ...
    @property
    def sequence_width(self) -> int | None: ...
    @property
    def c_extra(self) -> int: ...


class Conditions(nn.ModuleDict):
    """Embedders by name. Several conditions on the vector port are added, on the others they are concatenated.

    Embedders are built for the network's widths and for the fields of the cache. `table_std`: as in Table. `constant`:
    the network needs a vector even where no condition gives one, so a learned one stands there.

    Raises: ConfigError for a port that the network lacks, or a field that the cache lacks.
    """

    def __init__(
        self,
        configs: Sequence[ConditionConfig],
        network: HasPorts,
        fields: Sequence[FieldSpec],
        *,
        table_std: float | None = 0.02,
        constant: bool = False,
    ) -> None:
        super().__init__()
        self.configs = tuple(configs)
        widths = {
            "vector": network.vector_width,
            "sequence": network.sequence_width,
            "spatial": network.c_extra or None,
        }
        for config in configs:
            for port in config.ports:
                if widths[port] is None:
                    have = " and ".join(port for port, size in widths.items() if size)
                    raise ConfigError(
                        f"the network has no {port} port for the condition {config.name}",
                        got=f"port: {config.port}",
                        expected=have or "no condition",
                    )
            own = [width for port in config.ports if (width := widths[port]) is not None]
            self[config.name] = embedder(config, fields, widths=own, std=table_std)
        needs = constant and not any("vector" in config.ports for config in configs)
        self.constant = nn.Parameter(torch.empty(1, widths["vector"] or 0)) if needs else None
        if self.constant is not None:
            nn.init.normal_(self.constant, std=0.02)

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of the batch that training reads, each once."""
        return tuple(dict.fromkeys(config.field for config in self.configs if not config.inpaints))

    @property
    def inpaints(self) -> bool:
        """Whether what is known of the target is a condition."""
        return any(config.inpaints for config in self.configs)

    @property
    def fitted(self) -> tuple[str, ...]:
        """Fields that fit() reads."""
        return tuple(dict.fromkeys(config.field for config in self.configs if config.sampled))

    @property
    def required(self) -> tuple[str, ...]:
        """Fields without which sampling is refused."""
        return tuple(dict.fromkeys(config.field for config in self.configs if not config.may_be_absent))

    @property
    def class_frequencies(self) -> Float[Tensor, " classes"] | None:
        """Share of each class among the labeled training rows; None without a class condition."""
        classes = next((one for one in self._embedders().values() if isinstance(one, Classes)), None)
        return None if classes is None else classes.frequencies

    @property
    def all_dropped(self) -> bool:
        """Whether guidance pushes away from no condition at all, which is the same for every row."""
        return all(config.drop_prob > 0 for config in self.configs)

    def fit(self, rows: Batch, seed: int, *, trained: bool) -> None:
        """Frequencies and centroids from all training rows. `trained`: the weights come from a finished run."""
        for one in self._embedders().values():
            one.fit(rows, seed, trained=trained)

    def training_ports(self, batch: Batch, rng: Rng) -> Ports:
        """Embedded rows; each condition is dropped for a share of drop_prob of them, on its own."""
        embedded = []
        for config in self.configs:
            drop = rng.uniform() < config.drop_prob if config.drop_prob > 0 else None
            embedded.append(self._of(config)(self._of(config).augmented(batch, rng), drop))
        return self._ports(embedded, rng.rows)

    def sampling_ports(self, batch: Batch, rng: Rng) -> tuple[Ports, Ports]:
        """Embedded rows, and those that guidance pushes away from: nulls for every condition that training drops.

        What is known of the target is kept in both.
        An absent class or cluster is sampled per row by the frequencies of training, another absent field is null.
        Raises: ConfigError when a field is required and absent.
        """
        embedded = [self._of(config).filled(batch, rng) for config in self.configs]
        nulls = [
            self._of(config).nulls(rng.rows, _length(rows)) if config.drop_prob > 0 and not config.inpaints else rows
            for config, rows in zip(self.configs, embedded, strict=True)
        ]
        return self._ports(embedded, rng.rows), self._ports(nulls, rng.rows)

    def _ports(self, embedded: Sequence[Embedded], n: int) -> Ports:
        by_port: dict[str, list[Tensor | States]] = {"vector": [], "sequence": [], "spatial": []}
        for config, rows in zip(self.configs, embedded, strict=True):
            for port, part in zip(config.ports, rows if isinstance(rows, Both) else (rows,), strict=True):
                by_port[port].append(part)
        vectors, images = cast(list[Tensor], by_port["vector"]), cast(list[Tensor], by_port["spatial"])
        if self.constant is not None:
            vectors = [self.constant.expand(n, -1)]
        sequence, mask = _in_a_row(by_port["sequence"])
        return Ports(
            vector=sum(vectors[1:], vectors[0]) if vectors else None,
            sequence=sequence,
            mask=mask,
            spatial=torch.cat(images, 1) if images else None,
            enlarged=self._enlarged(embedded),
        )

    def _enlarged(self, embedded: Sequence[Embedded]) -> Tensor | None:
        """The enlarged small image of a residual low_res, without the channel of its level."""
        of = (rows for config, rows in zip(self.configs, embedded, strict=True) if getattr(config, "residual", False))
        return next((cast(Tensor, rows)[:, :-1] for rows in of), None)

    def _embedders(self) -> Mapping[str, Embedder]:
        return cast(Mapping[str, Embedder], dict(self.items()))

    def _of(self, config: ConditionConfig) -> Embedder:
        return cast(Embedder, self[config.name])


def _length(embedded: Embedded) -> int:
    states = embedded.states if isinstance(embedded, Both) else embedded
    return states.rows.shape[1] if isinstance(states, States) else 1


def _in_a_row(parts: Sequence[Tensor | States]) -> tuple[Float[Tensor, "b m width"] | None, Bool[Tensor, "b m"] | None]:
    """Vectors and sequences as one sequence, and its mask: None where all rows count."""
    if not parts:
        return None, None
    rows = torch.cat([part.rows if isinstance(part, States) else part[:, None] for part in parts], 1)
    masks = [part.mask if isinstance(part, States) else None for part in parts]
    if all(mask is None for mask in masks):
        return rows, None
    ones = [rows.new_ones(len(rows), _length(part), dtype=torch.bool) for part in parts]
    return rows, torch.cat([one if mask is None else mask for mask, one in zip(masks, ones, strict=True)], 1)
