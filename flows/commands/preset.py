"""Presets: complete params files in presets/, first comment line = what each is for."""

from pathlib import Path

import yaml

from components.errors import ConfigError

FOLDER = Path(__file__).parents[2] / "presets"


def list_presets() -> str:
    """One line per preset: name and purpose."""
    rows = {
        path.stem: path.read_text().splitlines()[0].removeprefix("#").strip() for path in sorted(FOLDER.glob("*.yaml"))
    }
    width = max(map(len, rows), default=0)
    return "\n".join(f"{name:<{width}}  {purpose}" for name, purpose in rows.items())


def read_preset(name: str) -> str:
    """The file's text. Raises: ConfigError for an unknown name."""
    path = FOLDER / f"{name}.yaml"
    known = sorted(p.stem for p in FOLDER.glob("*.yaml"))
    if name not in known:
        raise ConfigError("no such preset", got=name, expected=" | ".join(known))
    return path.read_text()


def use_preset(name: str, target: Path = Path("params.yaml")) -> str:
    """Validate the preset, then replace params.yaml and dvc.yaml beside it."""
    from flows.pipeline.params import check_params
    from flows.pipeline.plan import write_plan

    text = read_preset(name)
    params = check_params(yaml.safe_load(text), f"presets/{name}.yaml")
    temporary = target.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(target)
    changes = write_plan(target.parent, params.model_dump(mode="json"))
    lines = [f"{target} is now the preset {name}; `rcg explain` says what would run"]
    return "\n".join([*lines, *(["dvc.yaml follows it:", *changes] if changes else [])])
