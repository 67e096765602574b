"""The smallest bundle that loads: random weights, made by the bundle stage itself."""

from pathlib import Path

from components.bundle.system import SystemSampling
from components.cache.samples import INDEX
from components.generators.sampling import DiffusionSampling
from components.store.base import Store
from flows.identity.artifact import SCHEMA, FileEntry, digest_of
from flows.runs.records import CommittedRun, RunRecord, commit
from flows.stages.bundle.params import BundleParams
from flows.stages.bundle.run import run
from tests.support.folders import (
    FolderArtifact,
    FolderInputs,
    draw_bars,
    make_collect,
    make_encode,
    make_encoder,
    make_generators,
)
from tests.support.toys import worker

SPLITS = ["train"] * 4 + ["val"] * 2
METRICS = {"fd": 1.5, "precision": 0.75}


SAMPLING = SystemSampling(seed=0, batch_size=3, rdm=DiffusionSampling.tiny(), pixels=DiffusionSampling.tiny())


def bundle_params(**changes: object) -> BundleParams:
    return BundleParams(numerics=1, with_encoder=True).model_copy(update=changes)


def make_parents(
    root: Path, condition: str = "representation", *, class_rdm: bool = False, sampling: SystemSampling = SAMPLING
) -> FolderInputs:
    """All parents of the bundle stage; without an rdm where the condition is no representation."""
    if condition != "representation":
        sampling = sampling.model_copy(update={"rdm": None})
    make_generators(root, condition, class_rdm=class_rdm)
    make_encode(root / "encode", draw_bars(len(SPLITS))[0], SPLITS)
    make_collect(root / "collect", root.parent / "pictures", SPLITS)
    make_encoder(root / "encoder")
    FolderArtifact(root / "sample").write_json(INDEX, {"sampling": sampling.model_dump(mode="json")})
    FolderArtifact(root / "evaluate").write_json("metrics.json", METRICS)
    return FolderInputs(root)


def make_bundle(
    root: Path,
    condition: str = "representation",
    *,
    class_rdm: bool = False,
    sampling: SystemSampling = SAMPLING,
    **changes: object,
) -> FolderArtifact:
    """A bundle below root/bundle; changes are of its params."""
    inputs = make_parents(root / "parents", condition, class_rdm=class_rdm, sampling=sampling)
    bundle = FolderArtifact(root / "bundle")
    run(bundle_params(**changes), inputs, bundle, worker(root))
    bundle.commit()
    return bundle


def commit_bundle(store: Store, bundle: FolderArtifact) -> CommittedRun:
    """The bundle as a run in a store."""
    prefix = f"runs/bundle/{bundle.digest}"
    files, keys = {}, {}
    for name in bundle.names():
        data = bundle.read_bytes(name)
        keys[name] = f"{prefix}/out/1/{name}"
        files[name] = FileEntry(size=len(data), sha256=digest_of(data))
        store.put(keys[name], data)
    store.put(f"{prefix}/attempts/1.json", b"{}")

    def record(digest: str) -> RunRecord:
        return RunRecord(
            schema_version=SCHEMA, stage="bundle", fingerprint=bundle.digest, digest=digest, attempt=1, keys=keys,
            world_size=1, device="cpu", versions={}, host="here", context={}, started_ms=1, ended_ms=2,
            adopted_from=None, adopted_because=None,
        )  # fmt: skip

    return commit(store, prefix, files, record)
