"""Files of text-to-representation transformers: Corgi's prior, and unCLIP's as diffusers writes it (Karlo, Kandinsky).

Names are translated one by one; `layers.{2i}` of Corgi is attention of block i, `layers.{2i+1}` its MLP.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from components.errors import WeightsError
from components.fields import FieldSpec
from components.generators.config import GeneratorData
from components.interop.layout import Imported, Layout, Tensors, depth_of, heads_of, side_of
from components.interop.shadowed import square_target

_NET, _BASE = "net.", "process.base."
_NULLS = {"vector": "conditioner.text.null", "sequence": "conditioner.tokens.null"}
_HEADS = {2048: 32}
_FIXED, _LEARNED = ("vocab.mean", "vocab.std"), ("vocab.mean.weight", "vocab.log_std.weight")
_LEARNING_SCALE = 0.01
_N_PUBLISHED, _KAPPA = 1024, 5.0
_LINEAR_PAIRS = (
    ("time_embed.0", "time_embedding.linear_1"),
    ("time_embed.2", "time_embedding.linear_2"),
    ("x_proj", "proj_in"),
    ("text_proj", "embedding_proj"),
    ("token_proj", "encoder_hidden_states_proj"),
    ("norm", "norm_out"),
    ("out", "proj_to_clip_embeddings"),
)

Rules = Sequence[tuple[str, str]]
"""Pairs of names, ours first; {i} is a block, {j} and {k} are the layers 2i and 2i + 1."""


class PriorLayout(Layout):
    """A transformer that reads a text as a vector and as the states of its tokens, as they are."""

    tables = ("", "state_dict", "model")
    rules: ClassVar[Rules]
    family: ClassVar[str]

    def imported(self, tensors: Tensors) -> Imported:
        named = dict(self._names(tensors, theirs=True))
        weights = {f"{_NET}{named[name]}": t for name, t in tensors.items() if name in named}
        widths = {"vector": self.text_width(tensors), "sequence": self.row_width(tensors)}
        weights |= {_NULLS[port]: torch.zeros(1, width) for port, width in widths.items()}
        return Imported(weights | self.besides(tensors), {})

    def exported(self, weights: Tensors, kept: Tensors) -> dict[str, Tensor]:  # noqa: ARG002
        self._check_ours(weights)
        ours = {name.removeprefix(_NET): t for name, t in weights.items() if name.startswith(_NET)}
        named = dict(self._names(ours, theirs=False))
        return {named.get(name, name): t for name, t in ours.items()} | self.besides_back(weights)

    def besides(self, tensors: Tensors) -> dict[str, Tensor]:
        """What of the file is not the network's."""
        raise NotImplementedError

    def besides_back(self, weights: Tensors) -> dict[str, Tensor]:
        """The same in the other direction."""
        raise NotImplementedError

    def text_width(self, tensors: Tensors) -> int:
        raise NotImplementedError

    def row_width(self, tensors: Tensors) -> int:
        raise NotImplementedError

    def dim(self, tensors: Tensors) -> int:
        raise NotImplementedError

    def data(self, tensors: Tensors) -> GeneratorData:
        text = FieldSpec(name="text", dtype="float32", shape=(self.text_width(tensors),))
        tokens = FieldSpec(name="tokens", dtype="float16", shape=(self.row_width(tensors),), ragged=True)
        target = square_target("pixels", 3, 256)
        return GeneratorData(target=target, dim=self.dim(tensors), classes=None, more=(text, tokens))

    def transformer(self, tensors: Tensors, width: int, depth: int, mlp: int, drop_prob: float) -> dict[str, Any]:
        """The facts that do not depend on the family. `drop_prob`: of the states of tokens."""
        text = {"kind": "text", "missing": "skip", "project": False}
        return {
            "kind": "transformer",
            "family": self.family,
            "conditions": [
                {**text, "port": "vector", "drop_prob": 0.0},
                {**text, "port": "sequence", "drop_prob": drop_prob},
            ],
            "dim": self.dim(tensors),
            "width": width,
            "depth": depth,
            "heads": heads_of(width, _HEADS),
            "mlp_ratio": mlp / width,
            "context_dim": self.text_width(tensors),
            "sequence_dim": self.row_width(tensors),
            "prediction": "x0",
            "min_snr": None,
            "variance": "fixed",
        }

    def _check_ours(self, weights: Tensors) -> None:
        if f"{_NET}query" not in weights or not all(null in weights for null in _NULLS.values()):
            raise WeightsError(
                f"only a transformer that reads a text has {self.kind}'s layout",
                expected="conditions: kind: text by the ports vector and sequence, project: false",
            )

    def _names(self, tensors: Tensors, *, theirs: bool) -> list[tuple[str, str]]:
        """Names of the network's tensors, and what the other side calls them."""
        pairs = []
        for i in range(max(depth_of(tensors, prefix) for prefix in ("blocks.", *self.blocks))):
            at = {"i": i, "j": 2 * i, "k": 2 * i + 1}
            pairs += [(mine.format(**at), file.format(**at)) for mine, file in self.rules]
        pairs += [pair for pair in self.rules if "{" not in pair[0]]
        found = {file: mine for mine, file in pairs} if theirs else dict(pairs)
        return [(name, found[name]) for name in tensors if name in found]

    blocks: ClassVar[tuple[str, ...]]
    """Prefixes of the file's numbered blocks."""


def _with_parts(pairs: Rules, parts: Sequence[str] = ("weight", "bias")) -> list[tuple[str, str]]:
    return [(f"{mine}.{part}", f"{file}.{part}") for mine, file in pairs for part in parts]


def _normed(pairs: Rules) -> list[tuple[str, str]]:
    """x-transformers calls a layer norm's parts gamma and beta."""
    parts = (("weight", "gamma"), ("bias", "beta"))
    return [(f"{mine}.{a}", f"{file}.{b}") for mine, file in pairs for a, b in parts]


class CorgiLayout(PriorLayout):
    """Corgi's prior. Without learned Gaussians its file lacks them: add them as vocab.mean and vocab.std, (k, dim)."""

    kind = family = "corgi"
    blocks = ("transformer.layers.",)
    rules = (
        ("query", "final_emb"),
        *_with_parts(
            [
                (f"{mine}.{n}", f"{file}.{n}")
                for mine, file, ns in (
                    ("time_embed", "time_embed", (0, 2)),
                    ("index_embed", "pos_embed", (0, 2)),
                    ("token_proj", "t5_proj", (1, 4)),
                    ("x_proj", "x_proj", (0, 3)),
                    ("text_proj", "clip_sentence_proj", (0, 3)),
                    ("out", "out_proj", (0, 2)),
                )
                for n in ns
            ]
        ),
        *_normed(
            [
                ("token_proj.0", "t5_proj.0"),
                ("token_proj.3", "t5_proj.3"),
                ("x_proj.2", "x_proj.2"),
                ("text_proj.2", "clip_sentence_proj.2"),
            ]
        ),
        ("blocks.{i}.norm1.weight", "transformer.layers.{j}.0.0.g"),
        ("blocks.{i}.norm2.weight", "transformer.layers.{k}.0.0.g"),
        *(
            (f"blocks.{{i}}.attn.{part}.weight", f"transformer.layers.{{j}}.1.{part}.weight")
            for part in ("to_q", "to_k", "to_v", "to_out")
        ),
        *_with_parts(
            [
                ("blocks.{i}.mlp.proj", "transformer.layers.{k}.1.net.0.proj"),
                ("blocks.{i}.mlp.out", "transformer.layers.{k}.1.net.3"),
            ]
        ),
    )

    def besides(self, tensors: Tensors) -> dict[str, Tensor]:
        dim = self.dim(tensors)
        weights = {"mean": torch.zeros(dim), "std": torch.ones(dim)}
        base: dict[str, Tensor] = {}
        if _LEARNED[0] in tensors:
            mean, log_std = (tensors[name] for name in _LEARNED)
            std = (log_std * _LEARNING_SCALE).exp()
            base = {"mean": mean, "log_std": log_std, "centroids": mean * _LEARNING_SCALE, "spread": std}
        elif _FIXED[0] in tensors:
            base = {"centroids": tensors[_FIXED[0]], "spread": tensors[_FIXED[1]]}
        if base:
            k = len(base["centroids"])
            base |= {"spherical": torch.tensor(True), "choice.weight": torch.full((k,), 1.0 / k)}
        return weights | {f"{_BASE}{name}": t for name, t in base.items()}

    def besides_back(self, weights: Tensors) -> dict[str, Tensor]:
        learned, fixed = (f"{_BASE}mean", f"{_BASE}log_std"), (f"{_BASE}centroids", f"{_BASE}spread")
        theirs, ours = (_LEARNED, learned) if learned[0] in weights else (_FIXED, fixed)
        return {name: weights[mine] for name, mine in zip(theirs, ours, strict=True) if mine in weights}

    def check(self, tensors: Tensors, weights: Tensors, *, source: str) -> None:
        if any(name.startswith(f"{_BASE}open") for name in weights):
            fix = "set rdm.model.base to kind gaussians or normal, and train"
            raise WeightsError(
                f"{source} cannot hold a base that is read off a condition", got="base: conditional", fix=fix
            )
        has, index = any(name in tensors for name in (*_FIXED, *_LEARNED)), "pos_embed.0.weight" in tensors
        if index and not has:
            raise WeightsError(
                f"{source} was trained with fixed Gaussians, which its file lacks",
                expected="its means and deviations as two more tensors, vocab.mean and vocab.std, (k, dim)",
                fix="add them to the file, and name its new sha256",
            )
        super().check(tensors, weights, source=source)

    def facts(self, tensors: Tensors) -> dict[str, Any]:
        facts = self.transformer(
            tensors,
            side_of(tensors, "final_emb", 2),
            depth_of(tensors, "transformer.layers.") // 2,
            side_of(tensors, "transformer.layers.1.1.net.3.weight", 1),
            0.1,
        )
        facts |= {"n_tokens": 80, "schedule": {"kind": "linear", "n_times": 1000}, "weighting": "p2"}
        if "pos_embed.0.weight" in tensors:
            found = next((tensors[name] for name in (_LEARNED[0], _FIXED[0]) if name in tensors), None)
            k = _N_PUBLISHED if found is None else len(found)
            choice = {"by": "nearest", "field": "text"}
            base = {"kind": "gaussians", "k": k, "kappa": _KAPPA, "learnable": _LEARNED[0] in tensors, "index": True}
            facts["base"] = {**base, "choice": choice}
        return facts

    def text_width(self, tensors: Tensors) -> int:
        return side_of(tensors, "clip_sentence_proj.0.weight", 1)

    def row_width(self, tensors: Tensors) -> int:
        return side_of(tensors, "t5_proj.0.gamma", 0)

    def dim(self, tensors: Tensors) -> int:
        return side_of(tensors, "out_proj.2.weight", 0)


class UnclipLayout(PriorLayout):
    """diffusers' PriorTransformer; its clip_mean and clip_std become the statistics of our representations.

    So the process runs on whitened representations, which is a base of one Gaussian. The null of its guidance is the
    empty text, which the file does not hold: guidance needs a training of ours.
    """

    kind = family = "unclip"
    blocks = ("transformer_blocks.",)
    rules = (
        ("query", "prd_embedding"),
        ("positions", "positional_embedding"),
        *_with_parts(_LINEAR_PAIRS),
        *_with_parts(
            [
                ("blocks.{i}.norm1", "transformer_blocks.{i}.norm1"),
                ("blocks.{i}.norm2", "transformer_blocks.{i}.norm3"),
                *(
                    (f"blocks.{{i}}.attn.{part}", f"transformer_blocks.{{i}}.attn1.{part}")
                    for part in ("to_q", "to_k", "to_v")
                ),
                ("blocks.{i}.attn.to_out", "transformer_blocks.{i}.attn1.to_out.0"),
                ("blocks.{i}.mlp.proj", "transformer_blocks.{i}.ff.net.0.proj"),
                ("blocks.{i}.mlp.out", "transformer_blocks.{i}.ff.net.2"),
            ]
        ),
    )

    def besides(self, tensors: Tensors) -> dict[str, Tensor]:
        return {"mean": tensors["clip_mean"][0], "std": tensors["clip_std"][0]}

    def besides_back(self, weights: Tensors) -> dict[str, Tensor]:
        return {"clip_mean": weights["mean"][None], "clip_std": weights["std"][None]}

    def facts(self, tensors: Tensors) -> dict[str, Any]:
        facts = self.transformer(
            tensors,
            side_of(tensors, "prd_embedding", 2),
            depth_of(tensors, "transformer_blocks."),
            side_of(tensors, "transformer_blocks.0.ff.net.2.weight", 1),
            0.0,
        )
        n_tokens = side_of(tensors, "positional_embedding", 1) - 4
        return facts | {"n_tokens": n_tokens, "schedule": {"kind": "cosine", "n_times": 1000}}

    def text_width(self, tensors: Tensors) -> int:
        return side_of(tensors, "embedding_proj.weight", 1)

    def row_width(self, tensors: Tensors) -> int:
        return side_of(tensors, "encoder_hidden_states_proj.weight", 1)

    def dim(self, tensors: Tensors) -> int:
        return side_of(tensors, "proj_to_clip_embeddings.weight", 0)
