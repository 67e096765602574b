"""Whatever the bytes of a file are, its reader gives a value or an error of the project, and soon.

`make test-chaos` asks each reader with many more documents.
"""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from components.bundle.bundle import Bundle
from components.bundle.provenance import Provenance, read_provenance, with_provenance
from components.collection.lock import Entry, MetadataFile, read_lock, write_lock
from components.collection.metadata import read_notes
from components.collection.source import FolderSource
from components.errors import RcgError
from components.images.config import DecodeRecipe
from components.images.decode import decode
from components.images.pictures import png_bytes
from components.interop.checkpoint import read_checkpoint
from components.store import LocalStore
from flows.executors.image import IMAGES, check_image
from flows.executors.kuberay.manifest import TEMPLATE, read_template
from flows.gate.decisions import History
from flows.identity.artifact import FileEntry, Listing, LongManifest, Record, canonical_json, digest_of, unpack_manifest
from flows.lineage.origin import read_lineage
from flows.lineage.tombstones import Tombstone
from flows.lineage.verification import shown_pixels
from flows.pipeline.params import load_params
from flows.retrain.journal import new_journal
from flows.runs.ancestry import Context, Facts, made_at
from flows.runs.events import read_events
from flows.runs.lease import LeaseRecord, Watch
from flows.runs.process import Process
from flows.runs.records import Adoption, Erasure, Failure
from flows.runs.stored import Memo
from flows.runs.workspace import Pointer
from flows.settings import load_settings
from tests.support.bundles import make_bundle
from tests.support.made_runs import a_record, a_spec
from tests.support.mutations import documents

ROOT = Path(__file__).parents[2]
MORE = int(os.environ.get("CHAOS_MORE", "1"))
"""How many times as many documents as `make test` tries."""
PICTURE = torch.arange(8 * 8 * 3).reshape(8, 8, 3).to(torch.uint8).numpy()
RECIPE = DecodeRecipe(background=(255, 255, 255), max_pixels=100_000)
HEX = "a" * 64


def _records() -> dict[str, tuple[Record, Callable[[Any], object]]]:
    """An example of each record that is kept as JSON, and what is asked of one that was read."""
    entry = FileEntry(size=3, sha256=HEX)
    process = Process.current()
    lease = LeaseRecord(
        schema_version=1, attempt=1, holder=process, beat=3, heartbeat=1e9, interval_s=10.0, released=False
    )
    facts = Facts(stage="rdm", content=HEX, params={"seed": 1}, started_ms=1, ended_ms=2)
    stone: dict[str, Any] = {name: [] for name in ("keys", "collections", "models", "erased")}
    journal = new_journal(key=HEX, base=HEX, target="main", n_new=2, chunks=["c0"], why=["w"], who="me", time_ms=1)

    def told(context: Context) -> object:
        return [(made_at(facts), facts.seeds) for facts in context.stages.values()]

    kept: list[tuple[Record, Callable[[Any], object]]] = [
        (a_spec("rdm"), lambda spec: spec.identity.fingerprint),
        (a_record("rdm", HEX, HEX, {"a": "b"}), str),
        (Failure(schema_version=1, failure_class="data", message="m"), lambda failure: failure.error("it failed")),
        (Adoption(schema_version=1, source=HEX, reason="r", differences=[], time_ms=1), str),
        (Erasure(schema_version=1, files=["a"]), str),
        (lease, lambda found: Watch().is_dead(found)),
        (Memo(schema_version=1, key="k", data="d", file=entry, versions={}), str),
        (Pointer(schema_version=1, fingerprint=HEX, prefix=f"runs/rdm/{HEX}", digest=HEX), str),
        (Context(schema_version=1, stages={"rdm": facts}), told),
        (journal, lambda found: found.branch),
        (Tombstone(schema_version=1, sha256=HEX, who="me", time_ms=1, **stone), str),
        (History(schema_version=1, entries=[]), lambda history: history.champions()),
    ]
    return {type(record).__name__: (record, ask) for record, ask in kept}


RECORDS = _records()


@pytest.mark.parametrize("name", RECORDS)
@settings(max_examples=40 * MORE, derandomize=True, deadline=None)
@given(data=st.data())
def test_records(name: str, data: st.DataObject) -> None:
    example, ask = RECORDS[name]
    with contextlib.suppress(RcgError):
        ask(type(example).parse(data.draw(documents(canonical_json(example.model_dump(mode="json")))), "the store"))


@settings(max_examples=40 * MORE, derandomize=True, deadline=None)
@given(data=documents(b'{"name":"images/0.png","sha256":"%s","size":3}\n' % HEX.encode()))
def test_listings_of_long_manifests(data: bytes) -> None:
    listing = Listing(size=len(data), sha256=digest_of(data), n_files=1)
    head = LongManifest(schema_version=1, stage="encode", listing=listing).to_json()
    with contextlib.suppress(RcgError):
        unpack_manifest(head, "encode", "the store", lambda _: data)


class Reader:
    """A file's example, and the function that reads it."""

    def __init__(self, path: Path, read: Callable[[], object], data: bytes | None = None) -> None:
        self.path, self.read = path, read
        self.example = path.read_bytes() if data is None else data


def _readers(folder: Path) -> dict[str, Reader]:
    made = make_bundle(folder / "made")
    bundle = made.root
    store = LocalStore(folder / "store")
    event = b'{"images":{},"metrics":{"loss":1.5},"step":3,"time_ms":5,"total_steps":9}\n'
    store.put("runs/rdm/f/events/1/000001.jsonl", event)
    claim = Provenance(
        schema_version=1,
        bundle=HEX,
        parents={},
        seed=3,
        index=7,
        first=0,
        n=9,
        shown=None,
        columns=None,
        condition={},
        sampling={"batch_size": 4},
        platform=None,
    )
    names = ("params.yaml", "profile.yaml", "rayjob.yaml", "w.pt", "w.safetensors", "lock", "p.png")
    places = {name: folder / name for name in names}
    places["params.yaml"].write_bytes((ROOT / "presets/smoke.yaml").read_bytes())
    profile_text = b"store: x\nworkers: 2\nworker: {event_interval_s: 2.0}\njob_labels: {a: b}\n"
    places["profile.yaml"].write_bytes(profile_text)
    places["rayjob.yaml"].write_bytes(TEMPLATE.read_bytes())
    weights = {"a.weight": torch.arange(12.0).reshape(3, 4), "b": torch.zeros(2)}
    torch.save({"model": weights, "epoch": 3}, places["w.pt"])
    places["w.safetensors"].write_bytes(save(weights))
    write_lock(places["lock"], [MetadataFile("metadata.csv", 3, HEX)], [("c0", [Entry("a.png", 3, "0" * 16)])])
    places["p.png"].write_bytes(with_provenance(png_bytes(PICTURE), claim))
    (folder / ".rcg").mkdir()
    (folder / IMAGES).write_text(json.dumps({"image": {"rdm": a_spec("rdm").identity.code}}))
    found = {name: folder / name for name in ("metadata.csv", "metadata.jsonl")}
    found["metadata.csv"].write_bytes(b"file_name,label,text\na.png,cat,a cat\n")
    found["metadata.jsonl"].write_bytes(b'{"file_name": "a.png", "label": 3}\n')

    def loaded() -> Bundle:
        """With a manifest that commits what is there: a stranger's bundle."""
        made.commit()
        return Bundle.load(bundle)

    def notes(path: Path) -> object:
        return read_notes(FolderSource(folder), [MetadataFile(path.name, 0, digest_of(path.read_bytes()))])

    def lock() -> object:
        read = read_lock(places["lock"])
        return [read.entries(chunk) for chunk in read.chunks]

    def profile() -> object:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RCG_PROFILE", str(places["profile.yaml"]))
            return load_settings()

    def png() -> object:
        data = places["p.png"].read_bytes()
        shown_pixels(data)
        return read_provenance(data).batch

    key = store.root / "runs/rdm/f"
    parts = {
        f"bundle {p}": Reader(bundle / p, loaded)
        for p in ("rcg.json", "pixels/config.json", "rdm/config.json", "codec/config.json", "rdm/weights.safetensors")
    }
    return parts | {
        "bundle encoder": Reader(bundle / "encoder/config.json", lambda: loaded().encoder),
        "lineage": Reader(bundle / "lineage.json", lambda: read_lineage(bundle)),
        "events": Reader(key / "events/1/000001.jsonl", lambda: list(read_events(store, "runs/rdm/f"))),
        "params": Reader(places["params.yaml"], lambda: load_params(places["params.yaml"])),
        "profile": Reader(places["profile.yaml"], profile),
        "template": Reader(places["rayjob.yaml"], lambda: read_template(places["rayjob.yaml"])),
        "images": Reader(folder / IMAGES, lambda: check_image(a_spec("rdm"), "image", folder)),
        "torch": Reader(places["w.pt"], lambda: read_checkpoint(places["w.pt"])),
        "safetensors": Reader(places["w.safetensors"], lambda: read_checkpoint(places["w.safetensors"])),
        "lock": Reader(places["lock"], lock),
        "picture": Reader(places["p.png"], png),
        "decoded": Reader(places["p.png"], lambda: decode(places["p.png"].read_bytes(), RECIPE)),
        **{name: Reader(path, lambda path=path: notes(path)) for name, path in found.items()},  # type: ignore[misc]
    }


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    return _readers(tmp_path_factory.mktemp("readers"))


NAMES = (
    "bundle rcg.json",
    "bundle pixels/config.json",
    "bundle rdm/config.json",
    "bundle codec/config.json",
    "bundle rdm/weights.safetensors",
    "bundle encoder",
    "lineage",
    "events",
    "params",
    "profile",
    "template",
    "images",
    "torch",
    "safetensors",
    "lock",
    "picture",
    "decoded",
    "metadata.csv",
    "metadata.jsonl",
)


@pytest.mark.parametrize("name", NAMES)
@settings(
    max_examples=25 * MORE, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_files(name: str, readers: dict[str, Reader], data: st.DataObject) -> None:
    reader = readers[name]
    _replace(reader.path, data.draw(documents(reader.example)))
    try:
        with contextlib.suppress(RcgError):
            reader.read()
    finally:
        _replace(reader.path, reader.example)


def _replace(path: Path, data: bytes) -> None:
    path.unlink()  # what is there may be mapped into memory
    path.write_bytes(data)


def test_every_example_is_read(readers: dict[str, Reader]) -> None:
    """What the other tests change is valid to begin with."""
    assert set(readers) == set(NAMES)
    for name, reader in readers.items():
        if name not in ("torch", "safetensors"):  # of no known kind: named as that, after all of it was read
            reader.read()
