"""FID's Inception as data: its convolutions in order, the paths of its blocks, and the names that files give them.

A step of a path is a convolution or a pooling. Names are torchvision's (pytorch-fid, torch-fidelity); the second scheme
is that of the TensorFlow graph, `mixed_4.tower_1.conv_2` (consistency_models' inception-2015-12-05.pt).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Conv:
    """A convolution without bias, its batch norm and a ReLU."""

    name: str
    c_in: int
    c_out: int
    kernel: tuple[int, int]
    stride: int
    padding: tuple[int, int]


@dataclass(frozen=True)
class Pool:
    """A pooling of 3 x 3: `average` leaves the border out of its mean, `max` keeps the size, `halve` is max by 2."""

    kind: str


Step = Conv | Pool | tuple[Conv, Conv]
"""A pair: both see the same input, and their outputs are concatenated."""
Path = tuple[Step, ...]

STEM_A = (
    Conv("Conv2d_1a_3x3", 3, 32, (3, 3), 2, (0, 0)),
    Conv("Conv2d_2a_3x3", 32, 32, (3, 3), 1, (0, 0)),
    Conv("Conv2d_2b_3x3", 32, 64, (3, 3), 1, (1, 1)),
)
STEM_B = (
    Conv("Conv2d_3b_1x1", 64, 80, (1, 1), 1, (0, 0)),
    Conv("Conv2d_4a_3x3", 80, 192, (3, 3), 1, (0, 0)),
)


def _chain(name: str, *sizes: tuple[int, int, int] | tuple[int, int, int, int], numbered: bool = True) -> Path:
    """Convolutions name_1, name_2, … of (c_out, kernel height, kernel width, stride); `same` padding without stride."""
    c_in, steps = sizes[0][0], []
    for i, (c_out, kh, kw, *rest) in enumerate(sizes[1:], start=1):
        stride = rest[0] if rest else 1
        padding = (0, 0) if stride == 2 else (kh // 2, kw // 2)
        steps.append(Conv(f"{name}_{i}" if numbered else name, c_in, c_out, (kh, kw), stride, padding))
        c_in = c_out
    return tuple(steps)


def _one(name: str, c_in: int, c_out: int, side: int = 1, stride: int = 1) -> Path:
    return _chain(name, (c_in, 0, 0), (c_out, side, side, stride), numbered=False)


def _mixed_a(c_in: int, pool: int) -> tuple[Path, ...]:
    return (
        _one("branch1x1", c_in, 64),
        _chain("branch5x5", (c_in, 0, 0), (48, 1, 1), (64, 5, 5)),
        _chain("branch3x3dbl", (c_in, 0, 0), (64, 1, 1), (96, 3, 3), (96, 3, 3)),
        (Pool("average"), *_one("branch_pool", c_in, pool)),
    )


def _mixed_b(c_in: int) -> tuple[Path, ...]:
    return (
        _one("branch3x3", c_in, 384, 3, 2),
        _chain("branch3x3dbl", (c_in, 0, 0), (64, 1, 1), (96, 3, 3), (96, 3, 3, 2)),
        (Pool("halve"),),
    )


def _mixed_c(c: int) -> tuple[Path, ...]:
    return (
        _one("branch1x1", 768, 192),
        _chain("branch7x7", (768, 0, 0), (c, 1, 1), (c, 1, 7), (192, 7, 1)),
        _chain("branch7x7dbl", (768, 0, 0), (c, 1, 1), (c, 7, 1), (c, 1, 7), (c, 7, 1), (192, 1, 7)),
        (Pool("average"), *_one("branch_pool", 768, 192)),
    )


def _mixed_d(c_in: int) -> tuple[Path, ...]:
    return (
        _chain("branch3x3", (c_in, 0, 0), (192, 1, 1), (320, 3, 3, 2)),
        _chain("branch7x7x3", (c_in, 0, 0), (192, 1, 1), (192, 1, 7), (192, 7, 1), (192, 3, 3, 2)),
        (Pool("halve"),),
    )


def _fork(name: str) -> tuple[Conv, Conv]:
    return (
        Conv(f"{name}a", 384, 384, (1, 3), 1, (0, 1)),
        Conv(f"{name}b", 384, 384, (3, 1), 1, (1, 0)),
    )


def _mixed_e(c_in: int, pool: str) -> tuple[Path, ...]:
    return (
        _one("branch1x1", c_in, 320),
        (*_chain("branch3x3", (c_in, 0, 0), (384, 1, 1)), _fork("branch3x3_2")),
        (*_chain("branch3x3dbl", (c_in, 0, 0), (448, 1, 1), (384, 3, 3)), _fork("branch3x3dbl_3")),
        (Pool(pool), *_one("branch_pool", c_in, 192)),
    )


BLOCKS = {
    "Mixed_5b": _mixed_a(192, 32),
    "Mixed_5c": _mixed_a(256, 64),
    "Mixed_5d": _mixed_a(288, 64),
    "Mixed_6a": _mixed_b(288),
    "Mixed_6b": _mixed_c(128),
    "Mixed_6c": _mixed_c(160),
    "Mixed_6d": _mixed_c(160),
    "Mixed_6e": _mixed_c(192),
    "Mixed_7a": _mixed_d(768),
    "Mixed_7b": _mixed_e(1280, "average"),
    "Mixed_7c": _mixed_e(2048, "max"),  # of this file only: a slip of 2015 that every published FID depends on
}
SPATIAL = ("Mixed_6d", "branch1x1", 7)
"""sFID's features: the first seven channels of this convolution, 17 x 17 of them."""
N_LOGITS, DIM = 1008, 2048


def convs() -> dict[str, Conv]:
    """Every convolution by its name in the first scheme."""
    found = {conv.name: conv for conv in (*STEM_A, *STEM_B)}
    for block, paths in BLOCKS.items():
        for path in paths:
            for step in path:
                both = step if isinstance(step, tuple) else (step,)
                found |= {f"{block}.{conv.name}": conv for conv in both if isinstance(conv, Conv)}
    return found


def graph_names() -> dict[str, str]:
    """Name in the second scheme of every convolution of the first: towers are counted, and so are their steps."""
    stem = {conv.name: "conv" + (f"_{i}" if i else "") for i, conv in enumerate((*STEM_A, *STEM_B))}
    names = {name: f"layers.{other}" for name, other in stem.items()}
    for i, (block, paths) in enumerate(BLOCKS.items()):
        start = f"layers.mixed_{i}." if i else "layers.mixed."
        tower = 0
        for path in paths:
            only = [step for step in path if isinstance(step, Conv)]
            if len(only) == 1 and len(path) == 1:
                names[f"{block}.{only[0].name}"] = f"{start}conv"
                continue
            prefix = start + ("tower" if tower == 0 else f"tower_{tower}")
            joint = "_" if block in ("Mixed_7b", "Mixed_7c") else "."
            for j, conv in enumerate(only):
                names[f"{block}.{conv.name}"] = f"{prefix}{joint}conv" + (f"_{j}" if j else "")
            for j, conv in enumerate(path[-1] if isinstance(path[-1], tuple) else ()):
                names[f"{block}.{conv.name}"] = f"{prefix}_mixed_conv" + (f"_{j}" if j else "")
            tower += bool(only)
    return names
