"""A PNG without what no pixel needs: broken or swollen remarks cost no picture, broken pixels are refused by name."""

import struct
import zlib
from collections.abc import Iterator

from components.errors import DataError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_HELPFUL = frozenset({b"iCCP", b"eXIf", b"iTXt", b"tEXt", b"zTXt"})
_HELPFUL_TEXTS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
"""Keywords of texts that may say how the picture is turned."""
_MOST = 1_000_000
"""Bytes that a profile or text may unpack to."""


def without_remarks(png: bytes) -> bytes:
    """The first frame's chunks, and of the others those that say its colors and how it is turned, if they are sound.

    Raises: DataError naming the chunk of the pixels whose checksum is wrong.
    """
    kept = [SIGNATURE]
    for kind, body, crc in _chunks(png):
        is_sound = crc == zlib.crc32(kind + body)
        if kind in _PIXELS and not is_sound:
            raise DataError(f"damaged: the checksum of its {kind.decode()} is wrong")
        if kind in _PIXELS or (kind in _HELPFUL and is_sound and _is_small(kind, body)):
            kept.append(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc))
    return b"".join(kept)


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """(kind, body, checksum); what the file ends in the middle of comes with its right checksum, for the decoder."""
    at = len(SIGNATURE)
    while at + 8 <= len(png):
        (length,) = struct.unpack_from(">I", png, at)
        kind, body, end = png[at + 4 : at + 8], png[at + 8 : at + 8 + length], at + 12 + length
        is_whole = end <= len(png)
        yield kind, body, struct.unpack_from(">I", png, end - 4)[0] if is_whole else zlib.crc32(kind + body)
        if kind == b"IEND" or not is_whole:
            return
        at = end


def _is_small(kind: bytes, body: bytes) -> bool:
    if kind == b"eXIf":
        return len(body) <= _MOST
    if kind != b"iCCP" and not body.startswith(_HELPFUL_TEXTS):
        return False
    packed = body[body.find(b"\0") + 2 :]
    if kind == b"tEXt":
        return len(body) <= _MOST
    if kind == b"iTXt":  # keyword, whether packed, how, language, translated keyword, text
        parts = packed[1:].split(b"\0", 2)
        if len(parts) < 3:
            return False
        if packed[:1] == b"\0" or body[body.find(b"\0") + 1] == 0:
            return len(body) <= _MOST
        packed = parts[2]
    return _unpacks(packed)


def _unpacks(packed: bytes) -> bool:
    """Whether it is a whole zlib stream of no more than the bytes that are allowed."""
    stream = zlib.decompressobj()
    try:
        return len(stream.decompress(packed, _MOST)) < _MOST and stream.eof
    except zlib.error:
        return False
