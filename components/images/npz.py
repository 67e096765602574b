"""Pictures as one .npz file, as ADM's evaluation suite reads them: arr_0, (n, h, w, 3) uint8."""

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from components.errors import ShapeError
from components.files import replacing


def write_npz(path: Path, n: int, images: Iterable[np.ndarray]) -> None:
    """Write n images (h, w, 3) uint8 one by one, in flat memory; equal images give equal bytes.

    The file is there under its name only when it is whole. Raises: ShapeError for images of several shapes, OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    member = zipfile.ZipInfo("arr_0.npy")
    with (
        replacing(path) as temporary,
        zipfile.ZipFile(temporary, "w") as archive,
        archive.open(member, "w", force_zip64=True) as file,
    ):
        shape: tuple[int, ...] | None = None
        for image in images:
            if shape is None:
                shape = image.shape
                header = {"descr": "|u1", "fortran_order": False, "shape": (n, *shape)}
                np.lib.format.write_array_header_1_0(file, header)
            if image.shape != shape or image.dtype != np.uint8:
                raise ShapeError("pictures of several shapes", got=(image.shape, str(image.dtype)), expected=shape)
            file.write(np.ascontiguousarray(image).tobytes())
