"""ICC profiles, written by the format's own description: matrix profiles, and a CMYK one with a table of two points."""

import struct
from collections.abc import Mapping, Sequence

import numpy as np

Primaries = Sequence[Sequence[float]]

BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
D50, D65 = np.array([0.9642, 1.0, 0.8249]), np.array([0.95047, 1.0, 1.08883])
SRGB: Primaries = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE_RGB: Primaries = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
DISPLAY_P3: Primaries = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))


def to_xyz(primaries: Primaries) -> np.ndarray:
    """The matrix from linear RGB to XYZ under D65. Shapes: (3, 2) chromaticities -> (3, 3)."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    return np.asarray(columns * np.linalg.solve(columns, D65))


def matrix_profile(primaries: Primaries, gamma: float) -> bytes:
    """A profile of RGB with these primaries, white D65 and a power for a curve."""
    adapt = np.linalg.inv(BRADFORD) @ np.diag((BRADFORD @ D50) / (BRADFORD @ D65)) @ BRADFORD
    colorants = adapt @ to_xyz(primaries)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    tags = {f"{c}XYZ": _xyz(colorants[:, i]) for i, c in enumerate("rgb")} | {f"{c}TRC": curve for c in "rgb"}
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def cmyk_profile(paper: tuple[int, int, int]) -> bytes:
    """The more inks, the darker this paper: Lab in bytes, L in 0..255, a and b around 128."""
    shares = [1 - sum(inks) / 4 for inks in np.ndindex(2, 2, 2, 2)]
    lab = bytes(value for share in shares for value in (round(paper[0] * share), *paper[1:]))
    line, unit = bytes(range(256)), (np.eye(3, dtype=int) * 65536).flatten().tolist()
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + struct.pack(">9i", *unit)
    table += line * 4 + lab + line * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {"A2B0": table})


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(v * 65536) for v in values))


def _profile(kind: bytes, space: bytes, connection: bytes, tags: Mapping[str, bytes]) -> bytes:
    text = b"made by a test\0"
    common = {
        "desc": b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78),
        "cprt": b"text" + bytes(4) + text,
        "wtpt": _xyz(D50),
    }
    body, table, start = b"", struct.pack(">I", len(common) + len(tags)), 128 + 4 + 12 * (len(common) + len(tags))
    for name, data in (common | dict(tags)).items():
        table += name.encode() + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(">I4sI4s4s4s", start + len(body), bytes(4), 0x02400000, kind, space, connection)
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _xyz(D50)[8:]
    return header.ljust(128, b"\0") + table + body
