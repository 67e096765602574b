"""Stage collect: read every listed picture once; settle what is usable, what it is called and which split it is in."""

import hashlib
import heapq
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.base import Metrics
from components.cache.memo_keys import facts_key
from components.collection.facts import write_facts
from components.collection.images import Pixels, index_bytes, index_name, read_table
from components.collection.lock import Chunk, Lock, read_lock
from components.collection.metadata import folder_label, named_classes, read_notes, take
from components.collection.notes import Note
from components.collection.snapshot import verify_source
from components.collection.source import open_source
from components.collection.source_base import Source
from components.collection.splits import LEFT_OUT, SPLITS, Splitter
from components.errors import ConfigError, DataError
from components.images.config import DecodeRecipe
from components.images.pictures import grid, png_bytes
from components.training.distributed import share_out
from components.training.worker import Worker
from flows.identity.artifact import Inputs, Output
from flows.stages.collect.params import CollectParams

Row = dict[str, Any]

_log = logging.getLogger(__name__)
_SHOWN = 5
_N_SAMPLES, _SAMPLE_PX = 64, 64


def run(params: CollectParams, inputs: Inputs, out: Output, worker: Worker) -> Metrics:
    """Raises: DataError naming the picture, ConfigError for base chunks that do not exist."""
    if inputs.collection_lock is None:
        raise DataError("there is no collection.lock", fix="list your pictures first: `rcg snapshot FOLDER`")
    lock = read_lock(inputs.collection_lock)
    base = _base_chunks(params, lock)
    source = open_source(inputs.source, follows_links=lock.follows_links)
    if worker.rank == 0:
        verify_source(source, lock)
    facts = _Facts(params, lock, source, out, worker.threads)
    share_out(worker, lock.chunks, facts.ensure)
    if worker.rank != 0:
        return {}
    return _index(params, _Labels(params, source, lock), base, facts)


def _base_chunks(params: CollectParams, lock: Lock) -> set[str]:
    names = [chunk.name for chunk in lock.chunks]
    if params.base == "all":
        return set(names)
    unknown = [name for name in params.base if name not in names]
    if unknown or not params.base:
        raise ConfigError(
            "collect.base names chunks that collection.lock does not have",
            got=", ".join(unknown) or "none",
            expected=f"all, or some of {', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''}",
        )
    return set(params.base)


@dataclass
class _Facts:
    """The part of the work that reads pictures: one memoised file per chunk."""

    params: CollectParams
    lock: Lock
    source: Source
    out: Output
    threads: int

    def ensure(self, chunk: Chunk) -> None:
        """Read the chunk's pictures unless they were ever read."""
        recipe = self.params.decode

        def make(path: Path) -> None:
            write_facts(path, self.source, self.lock.entries(chunk), recipe, self.threads)

        key = facts_key(self.params.model_dump(mode="json"), chunk.digest)
        self.out.memoised(self._name(chunk), key, make)

    def rows(self, chunk: Chunk) -> list[Row]:
        rows: list[Row] = read_table([self.out.path(self._name(chunk))]).to_pylist()
        return rows

    def _name(self, chunk: Chunk) -> str:
        return f"facts/{chunk.name}.arrow"


class _Labels:
    """Label and captions of each picture."""

    def __init__(self, params: CollectParams, source: Source, lock: Lock) -> None:
        self.kind = params.labels
        self.unmatched = read_notes(source, lock.metadata)
        """Notes about pictures that have not come yet."""

    def of(self, key: str) -> Note:
        note = take(self.unmatched, key) or Note()
        label = {"metadata": note.label, "folder": folder_label(key), "none": None}[self.kind]
        return Note(label, note.captions, note.group)

    def refuse_lost_captions(self) -> None:
        """Raises: DataError naming the pictures that have captions but are not in the collection."""
        lost = sorted(key for key, note in self.unmatched.items() if note.captions)
        if lost:
            raise DataError(
                f"metadata has captions for {len(lost)} {'picture' if len(lost) == 1 else 'pictures'} that "
                "collection.lock does not list",
                got=", ".join(lost[:_SHOWN]) + (", …" if len(lost) > _SHOWN else ""),
                fix="correct file_name (it is relative to the metadata file), add the pictures, or remove the rows, "
                "and run `rcg snapshot`",
            )


@dataclass
class _Tally:
    """What the chunks so far hold."""

    rejected: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    splits: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    samples: list[tuple[str, str]] = field(default_factory=list)
    """(sha256, key) of the pictures to show."""
    groups: Counter[str] = field(default_factory=Counter)
    alone: list[str] = field(default_factory=list)
    """The first few pictures that are in no group."""

    def add(self, rows: Sequence[Row]) -> None:
        self.splits.update(row["split"] for row in rows)
        self.left_out += [row["key"] for row in rows if row["split"] == LEFT_OUT]
        self.others["constant"] += sum(row["constant"] for row in rows)
        self.others["labeled"] += sum(row["label"] is not None for row in rows)
        shown = [(row["sha256"], row["key"]) for row in rows if row["split"] == "train"]
        self.samples = heapq.nsmallest(_N_SAMPLES, self.samples + shown)
        self.groups.update(row["group"] for row in rows if row["group"] is not None)
        self.alone = (self.alone + [row["key"] for row in rows if row["group"] is None])[:_SHOWN]

    @property
    def largest(self) -> str:
        """The largest group and its size; empty where there are none."""
        return "".join(f"group {name} has {n} of them" for name, n in self.groups.most_common(1))


@dataclass
class _Listing:
    """base.json or collection.json: the chunks with the digests of their index files, and how to decode them."""

    recipe: DecodeRecipe
    follows_links: bool
    chunks: list[Row] = field(default_factory=list)
    classes: set[str] = field(default_factory=set)

    def add(self, name: str, rows: Sequence[Row], data: bytes) -> None:
        self.chunks.append({"name": name, "count": len(rows), "sha256": hashlib.sha256(data).hexdigest()})
        self.classes.update(row["label"] for row in rows if row["label"] is not None)

    def as_json(self) -> Row:
        decode = self.recipe.model_dump(mode="json")
        listing = {"schema": 1, "decode": decode, "classes": named_classes(self.classes)}
        return listing | {"chunks": self.chunks} | ({"follows_links": True} if self.follows_links else {})


def _index(params: CollectParams, labels: _Labels, base: set[str], facts: _Facts) -> Metrics:
    """Rank 0: join facts, labels and splits, chunk by chunk in the lock's order."""
    splitter, tally = Splitter(params.split), _Tally()
    everything, base_part = (_Listing(params.decode, facts.lock.follows_links) for _ in range(2))
    for chunk in facts.lock.chunks:
        found = facts.rows(chunk)
        tally.rejected += [{"key": row["key"], "why": row["reject"]} for row in found if row["reject"] is not None]
        rows = [row for row in found if row["reject"] is None]
        for row in rows:
            note = labels.of(row["key"])
            row |= {"label": note.label, "caption": list(note.captions) or None, "group": note.group}
        sha256s, hashes, groups = ([row[name] for row in rows] for name in ("sha256", "hash", "group"))
        for row, split in zip(rows, splitter.assign(sha256s, hashes, groups), strict=True):
            row["split"] = split
        data = index_bytes(rows)
        facts.out.write_bytes(index_name(chunk.name), data)
        tally.add(rows)
        everything.add(chunk.name, rows, data)
        if chunk.name in base:
            base_part.add(chunk.name, rows, data)
    _check(params, tally, facts.lock.count)
    for row in tally.rejected:
        take(labels.unmatched, row["key"])
    labels.refuse_lost_captions()
    _warn_of_groups(params, tally)
    _warn_of_near(params, tally, splitter.n_near)
    facts.out.write_json("collection.json", everything.as_json())
    facts.out.write_json("base.json", base_part.as_json())
    unmatched = sorted(labels.unmatched)
    facts.out.write_json(
        "rejects.json", {"rejected": tally.rejected, "left_out": tally.left_out, "unmatched": unmatched}
    )
    _draw(tally, facts)
    return {
        "images": tally.splits.total(),
        "rejected": len(tally.rejected),
        **{split: tally.splits[split] for split in SPLITS},
        "left_out": len(tally.left_out),
        "near_duplicates": splitter.n_near,
        "constant": tally.others["constant"],
        "labeled": tally.others["labeled"],
        "classes": len(named_classes(everything.classes) or ()),
        **({"groups": len(tally.groups), "grouped": tally.groups.total()} if tally.groups else {}),
        "unmatched_metadata": len(unmatched),
        "chunks": len(everything.chunks),
        "base_chunks": len(base_part.chunks),
    }


def _check(params: CollectParams, tally: _Tally, n_files: int) -> None:
    n_rejected = len(tally.rejected)
    if n_rejected > params.max_reject_share * n_files:
        named = [f"{row['key']} ({row['why']})" for row in tally.rejected[:_SHOWN]]
        raise DataError(
            f"{n_rejected} of {n_files} files cannot be used as pictures",
            got="; ".join(named) + ("; …" if n_rejected > _SHOWN else ""),
            expected=f"at most {params.max_reject_share:.1%}",
            fix="remove or mend them and run `rcg snapshot --rebuild`, or raise collect.max_reject_share",
        )
    empty = [split for split in SPLITS if not tally.splits[split]]
    if empty:
        raise DataError(
            f"no picture fell into {' or '.join(empty)}",
            got=", ".join([*(f"{tally.splits[split]} {split}" for split in SPLITS), *filter(None, [tally.largest])]),
            expected="at least one in each split",
            fix="add pictures or raise the shares in collect.split; lower near_bits if unlike pictures count as alike"
            + ("; name smaller groups" if tally.groups else ""),
        )
    if params.labels != "none" and not tally.others["labeled"]:
        where = "metadata.csv or metadata.jsonl" if params.labels == "metadata" else "the folders"
        raise DataError(
            f"collect.labels is {params.labels}, but {where} label no picture",
            fix="set collect.labels: none, or add a label column and run `rcg snapshot` again",
        )


def _warn_of_groups(params: CollectParams, tally: _Tally) -> None:
    """Tell of groups that are larger than a split, and of pictures in none."""
    if not tally.groups:
        return
    n, split = tally.splits.total(), params.split
    smallest = min(split.val_share, split.test_share, 1 - split.val_share - split.test_share)
    if tally.groups.most_common(1)[0][1] > smallest * n:
        _log.warning(
            "%s, and a split may have no more than %d: the shares of collect.split cannot be kept; name smaller groups",
            tally.largest,
            round(smallest * n),
        )
    if tally.alone:
        alone = n - tally.groups.total()
        more = ", …" if alone > len(tally.alone) else ""
        _log.warning("%d of %d pictures are in no group: %s%s", alone, n, ", ".join(tally.alone), more)


def _warn_of_near(params: CollectParams, tally: _Tally, n_near: int) -> None:
    """Tell of near-duplicates that are so many that a split cannot have its share."""
    n, asked = tally.splits.total(), {"val": params.split.val_share, "test": params.split.test_share}
    for split, share in asked.items():
        found = tally.splits[split] / n
        if found > 2 * share and n_near > found * n / 2 and not tally.groups:
            _log.warning(
                "%.0f%% of the pictures fell into %s, where %.0f%% were asked for: %d count as near-duplicates and "
                "stay together; if unlike pictures count as alike, lower collect.split.near_bits (%d)",
                100 * found,
                split,
                100 * share,
                n_near,
                params.split.near_bits,
            )


def _draw(tally: _Tally, facts: _Facts) -> None:
    """A contact sheet of pictures chosen by their digests."""
    pixels = Pixels(facts.source, facts.params.decode, facts.threads, 0)
    keys, sha256s = [key for _, key in tally.samples], [sha256 for sha256, _ in tally.samples]
    px = min(_SAMPLE_PX, *pixels.each(lambda _, image: min(image.size), keys, sha256s))
    facts.out.write_bytes("pictures/samples.png", png_bytes(grid(pixels.squares(keys, sha256s, px))))
