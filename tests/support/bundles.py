"""The smallest bundle that loads: random weights, made by the bundle stage itself."""

from pathlib import Path

from components.bundle.system import SystemSampling
from components.cache.samples import INDEX
from components.conditions.config import LowResConfig
from components.generators.files import save_generator
from components.generators.sampling import DiffusionSampling
from components.generators.upsampling import HOW, UpsamplerSampling, upsampler_data
from components.nn.vit import seeded_init
from components.pixels.dit import DitConfig
from components.store.base import Store
from flows.identity.artifact import FileEntry, digest_of
from flows.runs.records import CommittedRun, RunRecord, commit
from flows.stages.bundle.params import BundleParams
from flows.stages.bundle.run import run
from tests.support.folders import (
    PX,
    FolderArtifact,
    FolderInputs,
    draw_bars,
    make_collect,
    make_encode,
    make_encoder,
    make_generators,
    randomize,
)
from tests.support.made_runs import a_record
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


def make_cascade(root: Path, *, class_rdm: bool = False) -> FolderArtifact:
    """A bundle below root/bundle with an upsampler to pictures twice as large."""
    inputs, bundle = make_parents(root / "parents", class_rdm=class_rdm), FolderArtifact(root / "bundle")
    with seeded_init(0):
        config = DitConfig.tiny().model_copy(update={"conditions": (LowResConfig.tiny(),)})
        upsampler = config.build(upsampler_data(1, PX, 2 * PX, None))
    randomize(upsampler)
    save_generator(upsampler, inputs["upsampler"])
    how = UpsamplerSampling(how=DiffusionSampling.tiny(), noise=0.1)
    inputs["upsampler"].write_json(HOW, how.model_dump(mode="json"))
    run(bundle_params(), inputs, bundle, worker(root))
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
        return a_record("bundle", bundle.digest, digest, keys)

    return commit(store, prefix, files, record)
