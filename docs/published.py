"""The page of published numbers: each preset of a paper's row, what was published of it, and how to check it.

Provenance: FID and inception score by ADM's statistics, and the baselines, as in presets/paper.py (README of LTH14/rcg
since March 2024); FID against the validation set as in its first README; ADM's own numbers and the suite's self-check
from the README of openai/guided-diffusion and 2105.05233.
"""

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import yaml

PRESETS = Path(__file__).parents[1] / "presets"
sys.path.insert(0, str(PRESETS.parent))  # presets is no installed package
REFERENCE, WEIGHTS = "VIRTUAL_imagenet256_labeled.npz", "pt_inception-2015-12-05-6726825d.pth"
_AGAINST_VALIDATION = {
    "paper-mage-b": "4.18",
    "paper-mage-b-guided": "4.31",
    "paper-mage-b-class-rdm": "4.09",
    "paper-mage-b-class-rdm-guided": "4.64",
    "paper-mage-l": "3.56",
    "paper-mage-l-guided": "3.31",
    "paper-mage-l-class-rdm": "3.49",
    "paper-mage-l-class-rdm-guided": "3.90",
    "paper-adm-256": "7.21 (earlier checkpoint, IS 108.9)",
    "paper-ldm-8": "9.08",
}
_SUITE = (("FID", "3.943"), ("sFID", "6.140"), ("IS", "215.84"), ("precision", "0.8265"), ("recall", "0.5309"))
_HEAD = f"""# Published numbers, and how to check them

ImageNet at 256 pixels, 50,000 pictures. Lower FID is better, higher inception score is better. Nothing here was
measured by this project: it takes ImageNet, the published weights or a training at the papers' scale, and FID's
Inception.

**Two references.** Since March 2024 RCG's numbers are against ADM's statistics of the training set, the first column;
before, they were against the validation set, the second. Guided MAGE-L differs by 1.7 between them, and the order of
rows is another one, so a number without its reference says nothing.

To check a row, with the preset's name in place of NAME (sFID, precision and recall come with it; nobody published them
for these rows):

    rcg preset use NAME
    rcg repro
    rcg evaluate --samples sample --reference {REFERENCE} --network inception --weights {WEIGHTS}

"""


_ADM = """
## ADM's own rows

ImageNet at 64 to 512 pixels, 250 steps, FID by ADM's statistics of each size. Where a cell is empty, the paper's tables
have a number that was not checked for this page. A preset trains; the published files are imported in place of that:
`rcg import-checkpoint FILE --write`.

| preset | pixels | conditioned on | guide's scale | FID | IS |
| --- | --- | --- | --- | --- | --- |
"""


def published_page() -> str:
    """One line for each preset of presets/paper.py, then for each of presets/adm.py."""
    lines = [
        "| preset | conditioned on | steps | guidance | FID | FID against validation | IS |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [_line(row) for row in _rows("paper")]
    suite = ", ".join(f"{name} {value}" for name, value in _SUITE)
    return (
        _HEAD
        + "\n".join(lines)
        + "\n"
        + _ADM
        + "\n".join(map(_adm_line, _rows("adm")))
        + "\n\n## Checking the ruler itself\n\n"
        + f"ADM's suite ships samples with their numbers ({suite}), of ADM-G with ADM-U:\n\n"
        + f"    rcg evaluate --samples admnet_guided_upsampled_imagenet256.npz --reference {REFERENCE} "
        + f"--network inception --weights {WEIGHTS} --bootstrap 0\n"
    )


def _line(row: Any) -> str:
    pixels = yaml.safe_load((PRESETS / f"{row.name}.yaml").read_text())["sample"]["pixels"]
    told = {"representation": "representation", "none": "nothing", "cluster": "cluster"}[row.condition]
    if row.class_rdm:
        told += " of a class"
    fid, score = (_number(key, row.published) for key in ("FID", "IS"))
    other = _AGAINST_VALIDATION.get(row.name, "")
    return f"| `{row.name}` | {told} | {pixels['steps']} | {pixels['guidance']:g} | {fid} | {other} | {score} |"


def _adm_line(row: Any) -> str:
    params = yaml.safe_load((PRESETS / f"{row.name}.yaml").read_text())
    guide, larger = params["sample"]["pixels"].get("guide"), params.get("upsampler")
    px = f"{row.px} → {larger['px']}" if larger else f"{row.px}"
    fid, score = (_number(key, row.published) for key in ("FID", "IS"))
    scale = f"{guide['scale']:g}" if guide else ""
    return f"| `{row.name}` | {px} | {'class' if row.told else 'nothing'} | {scale} | {fid} | {score} |"


def _number(name: str, text: str) -> str:
    found = re.search(rf"\b{name} ([\d.]+\d)", text)
    return found[1] if found else ""


def _rows(name: str) -> Any:
    return importlib.import_module(f"presets.{name}").ROWS
