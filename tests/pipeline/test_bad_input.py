"""Input that is wrong: through the command line each is an error by name, and nothing is left half-written."""

import contextlib
import hashlib
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from torch import Tensor

from components.collection.source import FolderSource
from components.encoders.config import MoCoV3Config, TimmConfig
from components.weights import save_weights
from tests.support.bundles import make_bundle
from tests.support.cli import rcg_told
from tests.support.collected import scene

ROOT = Path(__file__).parents[2]
N_PICTURES = 14
_LIMITED = (
    "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048)); sys.dont_write_bytecode = True"
)
"""CPython 3.11 takes a compiled module that was cut off at the limit for a whole one, and leaves it in the checkout."""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@dataclass(frozen=True)
class Project:
    """A checkout with a few pictures that are listed and collected; the current folder."""

    root: Path
    patch: pytest.MonkeyPatch
    stack: contextlib.ExitStack

    @property
    def pictures(self) -> Path:
        return self.root / "pictures"

    @property
    def store(self) -> Path:
        return Path(os.environ["RCG_STORE"])

    @property
    def params(self) -> dict[str, Any]:
        params: dict[str, Any] = yaml.safe_load((self.root / "params.yaml").read_text())
        return params

    def set(self, **values: Any) -> None:
        """Change params.yaml; `__` stands for a dot, `...` for removal."""
        params = self.params
        for name, value in values.items():
            *above, last = name.split("__")
            section = params
            for key in above:
                section = section[key]
            section[last] = value
            if value is ...:
                del section[last]
        (self.root / "params.yaml").write_text(yaml.safe_dump(params))

    def add(self, name: str, data: bytes | Image.Image) -> None:
        """One more picture, listed but not collected."""
        if isinstance(data, bytes):
            (self.pictures / name).write_bytes(data)
        else:
            data.save(self.pictures / name)
        self.done("snapshot")

    def forget(self) -> None:
        """Nothing is collected yet."""
        shutil.rmtree(self.root / "artifacts")
        shutil.rmtree(self.store)

    def empty(self) -> None:
        """There are no pictures yet, and no list of them."""
        self.forget()
        shutil.rmtree(self.pictures)
        self.pictures.mkdir()
        (self.root / "collection.lock").unlink()

    def import_encoder(self, data: bytes, name: str = "w.safetensors", **pin: str) -> None:
        """Let the encoder come from a file of these bytes."""
        (self.root / name).write_bytes(data)
        weights = {"uri": name, "sha256": hashlib.sha256(data).hexdigest()} | pin
        self.set(encoder__model__weights=weights, encoder__train=None, encoder__contrastive=None)

    def encoder_tensors(self) -> dict[str, Tensor]:
        return MoCoV3Config.model_validate(self.params["encoder"]["model"]).build().network.state_dict()

    def use_store(self, path: Path | str) -> None:
        self.patch.setenv("RCG_STORE", str(path))

    def mount(self, *options: str) -> None:
        """Keep the store on a file system of its own."""
        self.stack.enter_context(mounted(self.root / "mounted", *options))
        self.use_store(self.root / "mounted")

    def done(self, *arguments: str) -> str:
        code, text = rcg_told(*arguments)
        assert code == 0, text
        return text

    def results(self) -> dict[str, bytes]:
        """All that counts as one: the list of pictures, artifacts/, and what is committed in the store."""
        paths = [self.root / "collection.lock", *self.root.glob("artifacts/**/*"), *self.store.glob("**/manifest.json")]
        return {str(path): path.read_bytes() for path in paths if path.is_file()}

    def leftovers(self) -> list[Path]:
        """Temporary files that nobody would finish."""
        return [*self.store.glob(".rcg-store/tmp/*"), *self.root.glob(".*.lock*"), *self.root.glob("artifacts/.*")]


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """A file system of its own at a folder, which is made."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bad") / "project"
    (root / "pictures").mkdir(parents=True)
    for i in range(N_PICTURES):
        scene(i).save(root / "pictures" / f"{i:04d}.png")
    shutil.copy(ROOT / "presets/smoke.yaml", root / "params.yaml")
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        project = _enter(root, patch, stack)
        project.set(collect__labels="none", collect__split__val_share=0.3, encoder__train__batch_size=4)
        project.done("snapshot")
        project.done("run", "collect")
    return root


@pytest.fixture
def project(collected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    shutil.copytree(collected, tmp_path / "project")
    with contextlib.ExitStack() as stack:
        yield _enter(tmp_path / "project", monkeypatch, stack)


def _enter(root: Path, patch: pytest.MonkeyPatch, stack: contextlib.ExitStack) -> Project:
    for name in [name for name in os.environ if name.startswith("RCG_")]:
        patch.delenv(name)
    patch.chdir(root)
    for name, value in {"STORE": str(root / "store"), "SOURCE": "pictures", "MLFLOW_URI": "off"}.items():
        patch.setenv(f"RCG_{name}", value)
    return Project(root, patch, stack)


def all_corrupt(p: Project) -> None:
    p.empty()
    for i in range(5):
        (p.pictures / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes([i]) * 50)
    p.done("snapshot")


def changed(p: Project) -> None:
    p.forget()
    path = p.pictures / "0003.png"
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def a_link_out(p: Project) -> None:
    p.empty()
    scene(99).save(p.root / "private.png")
    (p.pictures / "sneaky.png").symlink_to("../private.png")


def vanishing(p: Project) -> None:
    """The folder goes away while its pictures are read."""
    read, n_read = FolderSource.read, 0

    def last_read(self: FolderSource, *which: Any) -> bytes:
        nonlocal n_read
        n_read += 1
        if n_read == 4:
            shutil.rmtree(self.root)
        return read(self, *which)

    p.patch.setattr(FolderSource, "read", last_read)


def vanishing_in_collect(p: Project) -> None:
    p.forget()
    vanishing(p)


def wrong_shapes(p: Project) -> None:
    tensors = p.encoder_tensors()
    _import(p, tensors | {"norm.weight": tensors["norm.weight"][:-1]})


def missing_keys(p: Project) -> None:
    _import(p, {name: tensor for name, tensor in p.encoder_tensors().items() if name != "norm.bias"})


def _import(p: Project, tensors: dict[str, Tensor]) -> None:
    save_weights(p.root / "made.safetensors", tensors)
    p.import_encoder((p.root / "made.safetensors").read_bytes())


class Payload:
    """Unpickled, it would leave a file named `owned`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path("owned").touch, ()


def one_color(p: Project) -> None:
    """A network without biases makes nothing of a black picture."""
    p.add("black.png", Image.new("RGB", (20, 20)))
    model = TimmConfig(
        kind="timm",
        name="test_resnet",
        weights=None,
        input_px=32,
        dim=96,
        output="pooled",
        resample_positions=False,
        mean=(0, 0, 0),
        std=(1, 1, 1),
    )
    p.set(encoder__model=model.model_dump(mode="json"), rdm__model__dim=96)
    _import(p, model.build().network.state_dict())
    for stage in ("collect", "encoder", "codec"):
        p.done("run", stage)


def edited_in_the_store(p: Project) -> None:
    (path,) = p.store.glob("runs/collect/*/manifest.json")
    _edit(path)


def _edit(path: Path) -> None:
    text = path.read_text()
    assert '"size":' in text
    path.unlink()
    path.write_text(text.replace('"size":', '"size":1', 1))


def newer_mlflow(p: Project) -> None:
    with contextlib.closing(sqlite3.connect(p.root / "mlflow.db")) as connection, connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('feedfacecafe')")
    p.patch.setenv("RCG_MLFLOW_URI", "sqlite:///mlflow.db")


def case(name: str, spoil: Callable[[Project], object], command: str, code: int, *words: str, marks: Any = ()) -> Any:
    return pytest.param(spoil, command, code, words, id=name.replace(" ", "-"), marks=marks)


PARAMS = [
    case("unknown key", lambda p: p.set(rdm__wdith=3), "run collect", 2, "rdm.wdith: unknown key"),
    case("missing key", lambda p: p.set(rdm__seed=...), "run collect", 2, "rdm.seed: missing"),
    case("wrong type", lambda p: p.set(rdm__seed="many"), "run collect", 2, "rdm.seed", "integer", "got 'many'"),
    case(
        "out of range",
        lambda p: p.set(collect__max_reject_share=1.5),
        "run collect",
        2,
        "collect.max_reject_share",
        "less than 1",
        "got 1.5",
    ),
    case(
        "dimensions",
        lambda p: p.set(rdm__model__dim=17),
        "run encoder",
        2,
        "encoder's dimension is 16 but rdm.model.dim is 17",
        "set rdm.model.dim: 16",
    ),
    case(
        "uneven steps of the rdm",
        lambda p: p.set(sample__rdm__steps=7, sample__rdm__spacing="reference"),
        "run rdm",
        2,
        "sample.rdm",
        "(got: 7; valid: near it: 4, 5, 8, 10)",
    ),
    case(
        "uneven steps of dit",
        lambda p: p.set(sample__pixels__steps=3, sample__pixels__spacing="reference"),
        "run rdm",
        2,
        "sample.pixels",
        "(got: 3; valid: near it: 1, 2, 4, 5)",
    ),
]
PICTURES = [
    case("empty folder", lambda p: p.empty(), "snapshot", 3, "holds no pictures", "at least 3"),
    case("one image", lambda p: (p.empty(), scene(0).save(p.pictures / "a.png")), "snapshot", 3, "holds 1 picture\n"),
    case("a link out of the folder", a_link_out, "snapshot", 3, "a link out of the folder", "sneaky.png"),
    case("all images corrupt", all_corrupt, "run collect", 3, "5 of 5 files cannot be used", "0.png (", "at most 2.0%"),
    case("folder vanishes", vanishing_in_collect, "run collect", 3, "the folder of pictures is gone", "pictures"),
    case("folder vanishes later", vanishing, "run encoder", 3, "the folder of pictures is gone", "pictures"),
    case("changed after the snapshot", changed, "run collect", 3, "0003.png has changed since the snapshot"),
    case("text named png", lambda p: p.add("note.png", b"not a picture"), "run collect", 3, "note.png (not a picture"),
    case(
        "a bomb",
        lambda p: p.add("bomb.png", Image.new("1", (10_000, 10_000))),
        "run collect",
        3,
        "1 of 15 files",
        "bomb.png (",
        "pixels, above collect.decode.max_pixels = 50000000",
    ),
    case(
        "constant image",
        one_color,
        "run encode",
        3,
        f"1 of {N_PICTURES + 1} pictures have a representation without variance",
        "black.png",
    ),
]
WEIGHTS = [
    case(
        "wrong sha256",
        lambda p: p.import_encoder(b"x", sha256="1" * 64),
        "run encoder",
        3,
        "w.safetensors is not the expected file",
        "sha256 " + "1" * 64,
    ),
    case("no file", lambda p: p.import_encoder(b"x", uri="none.pt"), "run encoder", 3, "does not exist", "none.pt"),
    case("wrong shapes", wrong_shapes, "run encoder", 3, "wrong shape: norm.weight (23,) for (24,)"),
    case("missing keys", missing_keys, "run encoder", 3, "missing: norm.bias"),
    case("torn", lambda p: p.import_encoder(b"\x08" + bytes(9)), "run encoder", 3, "not a whole safetensors file"),
    case(
        "pickle payload",
        lambda p: p.import_encoder(pickle.dumps(Payload()), "w.pt"),
        "run encoder",
        3,
        "would run code from the file",
    ),
]
PLACES = [
    case(
        "no space left",
        lambda p: p.mount("-o", "size=32k"),
        "run collect",
        3,
        "No space left on device",
        "free disk space",
        marks=as_root,
    ),
    case(
        "read-only store",
        lambda p: p.mount("-o", "ro"),
        "run collect",
        3,
        "mounted read-only",
        "RCG_STORE",
        marks=as_root,
    ),
    case(
        "store below a file",
        lambda p: p.use_store(p.root / "params.yaml" / "s"),
        "run collect",
        3,
        "the store cannot write",
        "RCG_STORE",
    ),
    case("store of no kind", lambda p: p.use_store("ftp://host/x"), "run collect", 2, "no store for this address"),
    case("manifest edited in the store", edited_in_the_store, "run encoder", 3, "is not the one that was committed"),
    case(
        "manifest edited in artifacts",
        lambda p: _edit(p.root / "artifacts/collect/manifest.json"),
        "run encoder",
        3,
        "artifacts/collect/manifest.json",
        "edited by hand",
        "rcg run collect",
    ),
    case(
        "newer MLflow",
        newer_mlflow,
        "sample --model models:/rcg@challenger",
        2,
        "newer MLflow",
        "feedfacecafe",
        "RCG_MLFLOW_URI",
    ),
    case("second stage first", lambda p: p.forget(), "run encoder", 3, "run collect first: rcg run collect"),
    case("later stage first", Project.results, "run rdm", 3, "run encode first: rcg run encode"),
]


@pytest.mark.parametrize(("spoil", "command", "code", "words"), [*PARAMS, *PICTURES, *WEIGHTS, *PLACES])
def test_named_and_nothing_half_written(
    project: Project, spoil: Callable[[Project], object], command: str, code: int, words: tuple[str, ...]
) -> None:
    spoil(project)
    before = project.results()
    found, told = rcg_told(*command.split())
    assert found == code, told
    assert any("error: " in line for line in told.splitlines())
    assert "Traceback" not in told
    for word in words:
        assert word in told
    assert project.results() == before
    assert project.leftovers() == []
    assert not (project.root / "owned").exists()


@as_root
@pytest.mark.parametrize(("option", "reason"), [("size=8k", "No space left"), ("ro", "Read-only")])
def test_artifacts_that_cannot_be_written_lose_no_work(option: str, reason: str, project: Project) -> None:
    project.forget()
    with mounted(project.root / "artifacts", "-o", option):
        code, told = rcg_told("run", "collect")
        assert list((project.root / "artifacts").iterdir()) == []
    assert (code, "Traceback" in told) == (3, False)
    assert str(project.root / "artifacts") in told
    assert reason in told
    assert "RCG_STORE" not in told, "the store is not to blame"
    assert "already done" in project.done("run", "collect")


@as_root
def test_pictures_that_find_no_room_are_continued(project: Project) -> None:
    bundle, out = make_bundle(project.root / "made"), project.root / "samples"
    command = ("sample", "--model", str(bundle.path("config.json").parent), "--out", str(out), "-n", "64")
    with mounted(out, "-o", "size=64k"):
        code, told = rcg_told(*command)
        assert not [path for path in out.iterdir() if path.name.startswith(".")]
    assert (code, "Traceback" in told) == (3, False)
    assert str(out) in told
    assert "No space left" in told
    assert "64 picture(s)" in project.done(*command)


def test_a_file_size_limit_is_named(project: Project) -> None:
    """As a process of its own: the limit would reach pytest's output."""
    project.forget()
    command = [sys.executable, "-c", f"{_LIMITED}; from flows.__main__ import main; main()", "run", "collect"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "the store cannot write" in done.stderr
    assert "ulimit -f" in done.stderr
    assert "Traceback" not in done.stderr
    assert project.leftovers() == []
    assert not (project.root / "artifacts").exists()
