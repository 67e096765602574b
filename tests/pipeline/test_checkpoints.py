"""A pipeline that trains nothing: every stage imports a file in the reference's layout, and exports it again."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from components.codecs.config import KlConfig, VqganConfig
from components.diffusion.schedule import ScheduleConfig
from components.encoders.config import DinoConfig
from components.generators.config import GeneratorData
from components.interop.checkpoint import export_tensors, read_checkpoint, write_checkpoint
from components.pixels.mage import MageConfig
from components.rdm import RdmConfig
from components.target import TargetSpec
from tests.support.cli import rcg_told
from tests.support.collected import scene
from tests.support.folders import randomize
from tests.support.generators import build_rdm

ROOT = Path(__file__).parents[2]
CODES, DIM, PX = 103, 8, 8
TOKENS = TargetSpec(space="tokens", shape=(4, 4), dtype="int32", n_codes=CODES, image_px=PX)
VQGAN = VqganConfig.tiny().model_copy(update={"width": 32, "groups": 32, "n_codes": CODES})
MAGE = MageConfig.tiny().model_copy(update={"width": 64, "heads": 1, "decoder_heads": 1})
RDM = RdmConfig.tiny().model_copy(update={"dim": DIM, "schedule": ScheduleConfig(kind="sqrt_linear", n_times=1000)})
MODULES = {
    "dino": DinoConfig.tiny().model_copy(update={"width": 64, "heads": 1}).build().network,
    "vqgan": VQGAN.build(),
    "rdm": build_rdm(RDM, None),
    "mage": MAGE.build(GeneratorData(target=TOKENS, dim=DIM, classes=None)),
}
STAGE = {"dino": "encoder", "vqgan": "codec", "rdm": "rdm", "mage": "pixels"}


def rcg(*arguments: str, expected: int = 0) -> str:
    code, told = rcg_told(*arguments)
    assert code == expected, told
    return told


def random_file(kind: str) -> dict[str, Tensor]:
    """Every tensor of the layout random, also those that no forward pass reads."""
    rng = torch.Generator().manual_seed(len(kind))
    made = export_tensors(kind, MODULES[kind])
    return {
        name: t if not t.is_floating_point() else 0.2 * torch.randn(t.shape, generator=rng) for name, t in made.items()
    }


def edit(path: Path, **values: Any) -> None:
    params = yaml.safe_load(path.read_text())
    for name, value in values.items():
        *above, last = name.split("__")
        section = params
        for key in above:
            section = section[key]
        section[last] = value
    path.write_text(yaml.safe_dump(params))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("imported")
    (root / "pictures").mkdir()
    for i in range(24):
        scene(i).save(root / "pictures" / f"{i:04d}.png")
    shutil.copy(ROOT / "presets/smoke.yaml", root / "params.yaml")
    for module in MODULES.values():
        randomize(module)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("RCG_")]:
            patch.delenv(name)
        patch.chdir(root)
        for name, value in {"STORE": str(root / "store"), "SOURCE": "pictures", "MLFLOW_URI": "off"}.items():
            patch.setenv(f"RCG_{name}", value)
        yield root


def collect(project: Path) -> None:
    """The pictures of the project, listed and split; done once, whoever asks."""
    edit(project / "params.yaml", collect__labels="none", collect__split__val_share=0.3)
    rcg("snapshot")
    rcg("run", "collect")


def test_from_downloaded_weights_to_pictures_and_back(project: Path) -> None:
    files = {kind: random_file(kind) for kind in MODULES}
    for kind, tensors in files.items():
        write_checkpoint(project / f"{kind}.pth", kind, tensors)
        told = rcg("import-checkpoint", f"{kind}.pth", "--write", "--stage", STAGE[kind])
        assert f"kind      {kind}" in told
        assert f"rcg run {STAGE[kind]}" in told
    edit(project / "params.yaml", encoder__px=PX, codec__model__px=PX)  # not 256
    edit(project / "params.yaml", sample__pixels__steps=2, pixels__preview__n=2)
    collect(project)
    for stage in ("encoder", "codec", "encode", "rdm", "pixels", "sample"):
        rcg("run", stage)
    assert (project / "artifacts/sample/pictures/grid.png").stat().st_size > 200
    for kind, tensors in files.items():
        rcg("export-checkpoint", STAGE[kind], f"{kind}-again.pth")
        again = read_checkpoint(project / f"{kind}-again.pth")
        assert again.kind == kind
        assert again.tensors.keys() == tensors.keys()
        assert all(torch.equal(again.tensors[name], tensor) for name, tensor in tensors.items())


def test_without_write_nothing_changes(project: Path) -> None:
    before = (project / "params.yaml").read_bytes()
    write_checkpoint(project / "other.pth", "rdm", random_file("rdm"))
    told = rcg("import-checkpoint", "other.pth", "--kind", "rdm")
    assert yaml.safe_load(told[told.index("rdm:\n") : told.index("put this")])["rdm"]["model"]["width"] == RDM.width
    assert (project / "params.yaml").read_bytes() == before


def test_a_folder_as_diffusers_writes_it(project: Path) -> None:
    folder = project / "vae"
    folder.mkdir()
    kl = KlConfig.tiny().model_copy(update={"width": 32, "groups": 32}).build()
    write_checkpoint(folder / "diffusion_pytorch_model.safetensors", "kl", export_tensors("kl", kl))
    (folder / "config.json").write_text('{"_class_name": "AutoencoderKL", "scaling_factor": 0.13025}')
    told = rcg("import-checkpoint", "vae")
    section = yaml.safe_load(told[told.index("codec:\n") : told.index("put this")])["codec"]
    assert section["model"]["scale"] == 0.13025
    assert section["model"]["multipliers"] == [1, 2]
    assert section["weights"]["uri"] == "vae/diffusion_pytorch_model.safetensors"
    assert "assumed" not in told
    (folder / "config.json").unlink()
    assert "scale 0.18215 is assumed: there is no config.json" in rcg("import-checkpoint", "vae")


def test_what_cannot_be_imported_leaves_params_alone(project: Path) -> None:
    before = (project / "params.yaml").read_bytes()
    write_checkpoint(project / "whole.pth", "mage", random_file("mage"))
    whole = (project / "whole.pth").read_bytes()
    (project / "half.pth").write_bytes(whole[: len(whole) // 2])
    for arguments, code, message in (
        (("whole.pth", "--stage", "rdm"), 2, "imported by `pixels`"),
        (("whole.pth", "--kind", "vqgan"), 3, "holds no vqgan"),
        (("half.pth",), 3, "not a whole torch file"),
        (("absent.pth",), 3, "does not exist"),
        (("pictures",), 3, "one .safetensors file"),
    ):
        assert message in rcg("import-checkpoint", *arguments, "--write", expected=code)
    assert (project / "params.yaml").read_bytes() == before
    assert not list(project.glob(".*partial*"))


def test_what_cannot_be_exported_is_named(project: Path) -> None:
    collect(project)
    assert "no weights" in rcg("export-checkpoint", "collect", "c.pth", expected=2)
    assert "no such stage" in rcg("export-checkpoint", "collector", "c.pth", expected=2)
    assert not (project / "c.pth").exists()
