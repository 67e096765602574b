"""The `rcg` command: the only argument parser. Heavy modules are imported inside the commands, so `--help` is quick."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from components.errors import RcgError

app = typer.Typer(
    name="rcg",
    help="Train and run unconditional image generators on your own unlabeled pictures.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Fetch or move the bytes that artifacts stand for.", no_args_is_help=True)
preset_app = typer.Typer(help="Complete params files that are known to work.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(preset_app, name="preset")

StageName = Annotated[str, typer.Argument(metavar="STAGE", help="A stage of the pipeline, e.g. pixels.")]


@app.command()
def snapshot(
    source: Annotated[
        str | None, typer.Argument(help="`demo` or a folder of pictures; remembered for this checkout.")
    ] = None,
    rebuild: Annotated[
        bool, typer.Option(help="Start the list over: for a source whose old pictures changed.")
    ] = False,
    shrink: Annotated[
        bool, typer.Option(help="With --rebuild: it is meant that more than half of the pictures are gone.")
    ] = False,
) -> None:
    """List the pictures of SOURCE in collection.lock, which belongs into git."""
    from flows.commands.snapshot import take_snapshot

    typer.echo(take_snapshot(source, rebuild=rebuild, shrink=shrink))


@app.command()
def run(stage: StageName) -> None:
    """Run one stage, or find that it is done: looks up, follows, resumes, never repeats work."""
    from flows.execution.project import run_stage

    typer.echo(run_stage(stage))


@app.command()
def plan(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit with 2 when dvc.yaml is stale.")] = False,
) -> None:
    """Write dvc.yaml, which follows from params.yaml and the code, and say what changed in it."""
    from flows.commands.plan import plan_command

    typer.echo(plan_command(check=check))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def repro(
    context: typer.Context,
    parallel: Annotated[
        bool, typer.Option("--parallel", help="Run stages that do not wait for each other at the same time.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(help="With --parallel: at most so many at once; else one per core, on a cluster all.", min=1),
    ] = None,
) -> None:
    """Run what is out of date, in order: `dvc repro` with the right switches. More arguments go to dvc."""
    from flows.execution.dvc import repro as dvc_repro
    from flows.execution.parallel import repro_parallel
    from flows.pipeline.plan import check_plan

    stages = check_plan(Path())
    raise typer.Exit(repro_parallel(context.args, stages, jobs=jobs) if parallel else dvc_repro(context.args))


@app.command()
def job(spec: Annotated[str, typer.Argument(help="URI of a spec.json in a store.")]) -> None:
    """Execute one prepared run from its spec alone: what a cluster's pods call."""
    from flows.commands.job import run_spec

    typer.echo(run_spec(spec))


@app.command()
def cancel(
    stage: Annotated[str | None, typer.Argument(metavar="STAGE", help="One stage; all when left out.")] = None,
) -> None:
    """End the RayJobs that are at work on a stage; the command for the stage goes on from its checkpoint later."""
    from flows.execution.cluster import cancel_jobs

    typer.echo(cancel_jobs(stage))


@app.command()
def status() -> None:
    """One screen: the stages, the collection, the store and the registry."""
    from flows.commands.status import status_text

    typer.echo(status_text())


@app.command()
def explain(
    stage: Annotated[str | None, typer.Argument(help="One stage; all when left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Say whether a stage would run, why exactly, what it would use again and what it would cost."""
    from flows.commands.explain import explain_text

    typer.echo(explain_text(stage, as_json=as_json))


@app.command()
def adopt(
    stage: StageName,
    source: Annotated[str, typer.Option("--from", help="Fingerprint of the run whose result counts.")],
    reason: Annotated[str, typer.Option(help="Why it does; kept in the lineage.")],
) -> None:
    """Accept another run's result for the stage as it stands now, e.g. across a refactoring."""
    from flows.execution.project import adopt_run

    typer.echo(adopt_run(stage, source, reason))


@app.command()
def sample(  # noqa: PLR0913, PLR0917  (one parameter per option)
    model: Annotated[
        str, typer.Option(help="Bundle folder or registry alias, e.g. models:/rcg@challenger.")
    ] = "artifacts/bundle",
    out: Annotated[Path, typer.Option(help="Folder for grid.png and the single pictures.")] = Path("samples"),
    n: Annotated[int, typer.Option("-n", help="Number of pictures.", min=1)] = 16,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal pictures.")] = 0,
    like: Annotated[Path | None, typer.Option(help="Variations of this picture, through its representation.")] = None,
    between: Annotated[tuple[Path, Path] | None, typer.Option(help="Pictures between these two.")] = None,
    share: Annotated[
        float | None, typer.Option(help="With --between: one mix, of so much of the second.", min=0, max=1)
    ] = None,
    nearest: Annotated[
        int | None, typer.Option(help="Also nearest.png: so many nearest training pictures below each.", min=1)
    ] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="Class to draw, for class-conditional models.")
    ] = None,
    guidance: Annotated[float | None, typer.Option(help="Strength of classifier-free guidance; 0 is off.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the pixel generator.", min=1)] = None,
) -> None:
    """Draw pictures from a trained model: a grid and single PNGs."""
    from flows.commands.sample import DrawRequest, draw

    request = DrawRequest(
        model=model,
        out=out,
        n=n,
        seed=seed,
        like=like,
        between=between,
        share=share,
        nearest=nearest,
        class_name=class_name,
        guidance=guidance,
        steps=steps,
    )
    typer.echo(draw(request))


@app.command()
def register() -> None:
    """Register artifacts/bundle in MLflow as `challenger`; the same bundle is never registered twice."""
    from flows.execution.project import register_bundle

    typer.echo(register_bundle())


@app.command()
def retrain() -> None:
    """Make and judge a new model if enough new images came; interrupted, the same command goes on.

    What a schedule runs. On its own branch, in its own folder: files here are not touched until the end.
    """
    from flows.commands.retrain import retrain_command

    typer.echo(retrain_command())


@app.command()
def promote(
    version: Annotated[int | None, typer.Option(help="Version to judge; the challenger when left out.", min=1)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure and decide, but change nothing.")] = False,
) -> None:
    """Judge the challenger against the champion, and make it the champion if the gate lets it pass.

    Exit code 3 when it does not.
    """
    from flows.commands.promote import promote_command

    outcome = promote_command(version, dry_run=dry_run)
    typer.echo(outcome.text)
    raise typer.Exit(0 if outcome.result in ("promoted", "champion") else 3)


@app.command()
def gc(
    delete: Annotated[bool, typer.Option("--delete", help="Do it; otherwise only say what would go.")] = False,
    days: Annotated[float, typer.Option(help="Runs that ended or showed life since so many days stay.", min=0)] = 7.0,
) -> None:
    """Delete runs that no branch, tag, registered version or checkout stands on, and checkpoints of finished ones."""
    from flows.commands.gc import gc as collect_garbage
    from flows.execution.project import Project
    from flows.retrain.lock import open_lock

    project = Project.here()
    typer.echo(collect_garbage(project, open_lock(project), days=days, delete=delete))
    if project.settings.executor == "kuberay":
        from flows.execution.cluster import sweep_jobs

        typer.echo(sweep_jobs(project, days=days, delete=delete))


@app.command()
def forget(
    image: Annotated[str, typer.Argument(help="Its name in the source, its sha256, or a file with its bytes.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be erased, and erase nothing.")] = False,
) -> None:
    """Erase what was made of one picture everywhere in the store, and list the models that were trained on it."""
    from flows.commands.forget import forget as erase
    from flows.execution.project import Project

    typer.echo(erase(Project.here(), image, dry_run=dry_run))


@app.command()
def rollback(
    to: Annotated[int | None, typer.Option(help="Version to go back to; the one before when left out.", min=1)] = None,
) -> None:
    """Make the champion before this one the champion again; twice goes back two."""
    from flows.commands.promote import rollback as go_back

    typer.echo(go_back(to))


@app.command()
def history() -> None:
    """List every decision of the gate and every change of the champion."""
    from flows.commands.promote import history as told

    typer.echo(told())


@app.command("import-checkpoint")
def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="A checkpoint in the reference's layout; for kl also its folder.")],
    kind: Annotated[str | None, typer.Option(help="Which model of the file; the generator when left out.")] = None,
    stage: Annotated[str | None, typer.Option(help="Refuse a file that another stage imports.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Put the section into params.yaml.")] = False,
) -> None:
    """Recognize and check a checkpoint, and print the params that make `rcg run STAGE` import it."""
    from flows.commands.checkpoint import import_checkpoint as told

    typer.echo(told(file, kind, stage, write=write))


@app.command("export-checkpoint")
def export_checkpoint(
    stage: StageName,
    file: Annotated[Path, typer.Argument(help="Where to; .safetensors writes the bare tensors.")],
    kind: Annotated[str | None, typer.Option(help="The layout, where the stage's own is not meant.")] = None,
) -> None:
    """Write a stage's weights in the layout that the reference reads."""
    from flows.commands.checkpoint import export_checkpoint as written

    typer.echo(written(stage, file, kind))


@app.command()
def lineage(
    reference: Annotated[
        str,
        typer.Argument(help="A picture, samples.json, manifest.json, a stage, a bundle folder or models:/name@alias."),
    ] = "artifacts/bundle",
    model: Annotated[str | None, typer.Option(help="The bundle that drew a picture, if it is not found.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained page with the graph.")] = None,
) -> None:
    """Say what a picture, model or artifact was made of: data, params, code, versions."""
    if html is not None:
        from flows.pages.lineage import write_html

        typer.echo(write_html(reference, html, model=model))
        return
    from flows.lineage.lineage import lineage_text

    typer.echo(lineage_text(reference, model=model, as_json=as_json))


@app.command()
def verify(
    picture: Annotated[Path, typer.Argument(help="A PNG that `rcg sample` or the sample stage wrote.")],
    model: Annotated[
        str | None, typer.Option(help="Bundle folder or registry reference; found by digest when left out.")
    ] = None,
    like: Annotated[Path | None, typer.Option(help="The picture that it is a variation of.")] = None,
    between: Annotated[tuple[Path, Path] | None, typer.Option(help="The two pictures that it lies between.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Draw a picture again from its bundle and compare: identical, matches, differs or not decidable."""
    from flows.commands.verify import VerifyRequest, verify_text

    given = between or ((like,) if like is not None else ())
    text, code = verify_text(VerifyRequest(picture, model, given), as_json=as_json)
    typer.echo(text)
    raise typer.Exit(code)


@app.command()
def report(
    file: Annotated[Path, typer.Argument(help="Where the page goes.")] = Path("report.html"),
) -> None:
    """Write one self-contained page about the model: its versions, their pictures and numbers, and what was decided."""
    from flows.commands.report import write_report

    typer.echo(write_report(file))


@app.command()
def doctor() -> None:
    """Check Python, store, MLflow, source and device, and say what to fix."""
    from flows.commands.doctor import examine

    text, healthy = examine()
    typer.echo(text)
    raise typer.Exit(0 if healthy else 2)


@data_app.command("copy")
def data_copy(
    source: Annotated[str, typer.Option("--from", help="Store that has the bytes.")],
    stages: Annotated[list[str] | None, typer.Argument(help="Stages; all with a manifest when left out.")] = None,
) -> None:
    """Copy runs that this checkout's manifests name from another store into this one."""
    from flows.execution.project import copy_data

    typer.echo(copy_data(source, stages or []))


@data_app.command("pull")
def data_pull(
    stage: StageName, to: Annotated[Path | None, typer.Option(help="Folder; data/<stage> when left out.")] = None
) -> None:
    """Fetch every file of a stage's artifact into a folder."""
    from flows.execution.project import pull_data

    typer.echo(pull_data(stage, to or Path("data") / stage))


@preset_app.command("list")
def preset_list() -> None:
    """The presets and what each is for."""
    from flows.commands.preset import list_presets

    typer.echo(list_presets())


@preset_app.command("show")
def preset_show(name: str) -> None:
    """Print a preset."""
    from flows.commands.preset import read_preset

    typer.echo(read_preset(name), nl=False)


@preset_app.command("use")
def preset_use(name: str) -> None:
    """Check a preset and make it params.yaml."""
    from flows.commands.preset import use_preset

    typer.echo(use_preset(name))


def main() -> None:
    """Run the command; an error meant for a person goes to stderr, with its exit code and no traceback."""
    # OpenMP threads that spin while others need the core make a step on a busy machine many times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        app()
    except RcgError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.secho("interrupted; the same command continues where it stopped", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
