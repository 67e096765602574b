"""`rcg preset list`, `show` and `use`: complete params files in presets/; the first comment says what each is for."""

from pathlib import Path

import typer

from flows.commands.terminal import say, say_lines

app = typer.Typer(help="Complete params files that are known to work.", no_args_is_help=True)

FOLDER = Path(__file__).parents[2] / "presets"


@app.command("list")
def list_presets() -> None:
    """The presets and what each is for."""
    rows = {path.stem: path.read_text().splitlines()[0].removeprefix("#").strip() for path in _files()}
    width = max(map(len, rows), default=0)
    say_lines(f"{name:<{width}}  {purpose}" for name, purpose in rows.items())


@app.command()
def show(name: str) -> None:
    """Print a preset."""
    say(_read(name), end="")


@app.command()
def use(name: str) -> None:
    """Check a preset and make it params.yaml."""
    from components.files import write_whole
    from flows.pipeline.params import check_params
    from flows.pipeline.plan import write_plan
    from flows.yaml_files import parse_yaml

    text, target = _read(name), Path("params.yaml")
    params = check_params(parse_yaml(text, f"presets/{name}.yaml"), f"presets/{name}.yaml")
    write_whole(target, text)
    say(f"{target} is now the preset {name}; `rcg explain` says what would run")
    changes = write_plan(target.parent, params.model_dump(mode="json"))
    if changes:
        say_lines(["dvc.yaml follows it:", *changes])


def _read(name: str) -> str:
    """The file's text. Raises: ConfigError for an unknown name."""
    from components.errors import ConfigError

    known = [path.stem for path in _files()]
    if name not in known:
        raise ConfigError("no such preset", got=name, expected=" | ".join(known))
    return (FOLDER / f"{name}.yaml").read_text()


def _files() -> list[Path]:
    return sorted(FOLDER.glob("*.yaml"))
