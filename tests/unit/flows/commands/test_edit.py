"""`rcg edit` and `rcg verify` of what it wrote."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.bundle.provenance import read_provenance
from components.errors import ConfigError
from flows.lineage.sampling import open_picture
from tests.support.bundles import make_bundle
from tests.support.cli import rcg
from tests.support.folders import PX, draw_bars


def test_a_picture_is_edited_and_proven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RCG_MLFLOW_URI", "off")
    model = ("--model", str(make_bundle(tmp_path / "made").root))
    bars = draw_bars(2)[0]
    for i in (0, 1):
        Image.fromarray(bars[i]).save(f"{i}.png")
    mask = np.zeros((PX, PX), np.uint8)
    mask[4:] = 255
    Image.fromarray(mask).save("mask.png")

    said = rcg("edit", "0.png", "--mask", "mask.png", "-n", "4", "--out", "new", "--repaint", "2", *model)
    assert said == "4 picture(s) in new, side by side in new/grid.png\n"
    for i in range(4):
        made = np.asarray(Image.open(f"new/{i:04d}.png"))
        assert (made[:4] == bars[0][:4]).all()
    claim = read_provenance(Path("new/0003.png").read_bytes())
    files = {name: open_picture(Path(f"{name}.png")).sha256 for name in ("0", "mask")}
    assert claim.condition == {"image": files["0"], "mask": files["mask"]}
    assert claim.sampling["pixels"]["repaint"] == 2

    given = ("--image", "0.png", "--mask", "mask.png")
    for name in ("0003.png", "grid.png"):
        assert rcg("verify", f"new/{name}", *given, *model).startswith("identical")
    assert "--image and --mask" in rcg("verify", "new/0003.png", *model, code=3)
    with pytest.raises(ConfigError, match="not the pictures"):
        rcg("verify", "new/0003.png", "--image", "1.png", "--mask", "mask.png", *model)

    rcg("edit", "0.png", "--mask", "mask.png", "-n", "2", "--out", "liked", "--like", "1.png", *model)
    assert rcg("verify", "liked/0001.png", *given, "--like", "1.png", *model).startswith("identical")
    assert "--like" in rcg("verify", "liked/0001.png", *given, *model, code=3)
    rcg("edit", "0.png", "--mask", "mask.png", "-n", "1", "--out", "free", "--free", *model)
    assert rcg("verify", "free/0000.png", *given, *model).startswith("identical")
    assert "--image and --mask" in rcg("verify", "free/0000.png", "--image", "0.png", *model, code=3)
