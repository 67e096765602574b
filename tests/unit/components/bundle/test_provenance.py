"""Provenance in PNG files: what goes in comes out, pixels stay, and forgeries are named."""

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from components.bundle.integrity import MANIFEST_SCHEMA, bundle_digest
from components.bundle.provenance import (
    KEYWORD,
    read_provenance,
    with_provenance,
)
from components.errors import ArtifactError, DataError
from components.images.pictures import png_bytes
from flows.identity.artifact import SCHEMA
from tests.support.bundles import make_bundle
from tests.support.claims import a_claim

PICTURE = np.arange(8 * 6 * 3, dtype=np.uint8).reshape(8, 6, 3)


def png_with(text: str, times: int = 1) -> bytes:
    """A PNG as another program would write it, with any text under our keyword."""
    info = PngImagePlugin.PngInfo()
    for _ in range(times):
        info.add_text(KEYWORD, text)
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def test_comes_out_as_it_went_in_and_every_reader_sees_the_same_pixels() -> None:
    claim = a_claim(condition={"class": "Käfer 7"})
    png = with_provenance(png_bytes(PICTURE), claim)
    assert png == with_provenance(png_bytes(PICTURE), claim)
    assert read_provenance(png) == claim
    with Image.open(io.BytesIO(png)) as picture:
        assert (np.asarray(picture) == PICTURE).all()
        assert json.loads(picture.text[KEYWORD]) == claim.model_dump(mode="json")  # type: ignore[attr-defined]


@given(n=st.integers(1, 40), size=st.integers(1, 12), first=st.integers(0, 5), data=st.data())
def test_the_batch_holds_the_image_and_is_one_that_the_request_drew(
    n: int, size: int, first: int, data: st.DataObject
) -> None:
    index = first + data.draw(st.integers(0, n - 1))
    batches = [range(start, min(n, start + size)) for start in range(0, n, size)]
    batch = a_claim(index=index, first=first, n=n, sampling={"batch_size": size}).batch
    assert batch in batches
    assert index - first in batch
    shown = data.draw(st.integers(1, n))
    sheet = a_claim(index=None, shown=shown, first=first, n=n, sampling={"batch_size": size}).batch
    assert sheet.start == 0
    assert len(sheet) >= shown
    assert any(sheet.stop == b.stop for b in batches)


def test_a_picture_without_it_is_named() -> None:
    with pytest.raises(ArtifactError, match="does not say where it came from"):
        read_provenance(png_bytes(PICTURE))


def _text(**changes: Any) -> str:
    return json.dumps(a_claim().model_dump(mode="json") | changes)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (png_with("not json"), "provenance is not valid JSON"),
        (png_with("[]"), "provenance is no mapping"),
        (png_with("{}"), r"edited or forged[\s\S]*schema_version"),
        (png_with(_text(seed=-1)), r"forged[\s\S]*seed"),
        (png_with(_text(extra=1)), r"forged[\s\S]*extra"),
        (png_with(_text(index=9)), "forged"),
        (png_with(_text(index=None)), "forged"),
        (png_with(_text(index=None, shown=10)), "forged"),
        (png_with(_text(sampling={})), "forged"),
        (png_with(_text(sampling={"batch_size": 0})), "forged"),
        (png_with(_text(n=10**9, sampling={"batch_size": 10**9})), "forged"),
        (png_with(_text(), times=2), r"forged[\s\S]*2 records"),
        (png_with(_text(schema_version=2)), "newer version"),
        (png_with(_text(n=10**30)), "more than 64 bits at n"),
    ],
)
def test_forgeries_are_named(data: bytes, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        read_provenance(data)


def test_what_is_no_whole_png_is_named() -> None:
    png = with_provenance(png_bytes(PICTURE), a_claim())
    at = png.index(b'"seed":3')
    for data in (b"", b"GIF89a", png[:-3], png[:40], png[:at] + b'"seed":4' + png[at + 8 :]):
        with pytest.raises(DataError, match=r"not a PNG|torn or altered"):
            read_provenance(data)


def test_a_recomputed_checksum_makes_a_valid_claim_of_something_else() -> None:
    """So a record alone proves nothing: only drawing it again does."""
    png = with_provenance(png_bytes(PICTURE), a_claim())
    text = json.dumps(a_claim().model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()
    body = KEYWORD.encode() + b"\0" + text
    forged = body.replace(b'"seed":3', b'"seed":4')
    crc = struct.pack(">I", zlib.crc32(b"tEXt" + forged))
    assert read_provenance(png.replace(body + struct.pack(">I", zlib.crc32(b"tEXt" + body)), forged + crc)).seed == 4


def test_digest_of_a_folder_is_that_of_its_manifest(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    assert MANIFEST_SCHEMA == SCHEMA
    assert bundle_digest(bundle.root) == bundle.digest
