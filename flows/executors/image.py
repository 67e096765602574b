"""Which code an image carries, digest by stage: a driver and its pods never run different code unnoticed.

`python -m flows.executors.image` prints {stage: code digest} of the sources beside it; an image is built with that text
in it.
"""

import json
import sys
from pathlib import Path

from components.documents import read_json, validated
from components.errors import ConfigError
from flows.identity.artifact import canonical_json, digest_of
from flows.identity.closure import module_digests
from flows.pipeline.table import KINDS
from flows.runs.records import Spec

IMAGES = Path(".rcg/images.json")
"""Written by `make image`: image reference -> {stage: code digest}."""
_FIX = "delete it, or build again: make image"


def code_digest(module: str) -> str:
    """One digest for the module of a stage and all that it imports: what its fingerprints say of code."""
    return digest_of(canonical_json(module_digests(module)))


def stage_digests() -> dict[str, str]:
    return {stage.name: code_digest(stage.module) for stage in KINDS.values()}


def check_image(spec: Spec, image: str, root: Path) -> None:
    """Raises: ConfigError when the image is known to carry other code for the stage. Unknown ones check themselves."""
    path = root / IMAGES
    if not path.is_file():
        return
    known = validated(dict[str, dict[str, str]], read_json(path, ConfigError, fix=_FIX), str(path), ConfigError)
    found = known.get(image, {}).get(spec.stage)
    if found is not None and found != spec.identity.code:
        raise _other_code(spec, f"{found[:10]} in {image}")


def check_own_code(spec: Spec) -> None:
    """Raises: ConfigError when this process would do the work with other code than the spec was made with."""
    found = code_digest(spec.module)
    if found != spec.identity.code:
        raise _other_code(spec, f"{found[:10]} here")


def _other_code(spec: Spec, got: str) -> ConfigError:
    return ConfigError(
        f"the image was built from other code for {spec.stage} than this run asks for",
        got=f"code {got}",
        expected=f"code {spec.identity.code[:10]}",
        fix="build the image from this checkout (make image) and set RCG_IMAGE to what that prints",
    )


if __name__ == "__main__":
    json.dump(stage_digests(), sys.stdout, indent=1)
