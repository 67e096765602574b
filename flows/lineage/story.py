"""What the report shows of a model: its versions, what was decided about them, and how they learned."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from components.documents import parse_json
from components.errors import ArtifactError, MissingError, RcgError
from components.store.base import Store
from flows.execution.project import Project
from flows.gate.decisions import Decision, Decisions, Entry
from flows.lineage.origin import LINEAGE, bundles
from flows.pipeline.table import KINDS
from flows.runs.ancestry import Context, Facts, keep_context
from flows.runs.records import CommittedRun, load_run, read_file, read_json_file, run_prefix

_CURVES = ("pixels", "rdm")


@dataclass(frozen=True)
class StoryVersion:
    """One bundle, registered or not. `number` is its version in the registry, as far as that is known."""

    number: int | None
    digest: str
    aliases: tuple[str, ...]
    stages: Mapping[str, Facts]
    metrics: Mapping[str, float]
    n_pictures: int
    """Pictures that it was made from."""
    grid: bytes | None
    """PNG of pictures that it drew; None when they have left the store."""
    real: bytes | None
    """PNG of real pictures that it was compared with."""
    curves: Mapping[str, list[tuple[float, float]]]
    """Stage -> (step, loss)."""
    made_ms: int

    @property
    def name(self) -> str:
        return f"version {self.number}" if self.number is not None else f"bundle {self.digest[:10]}"

    @property
    def short(self) -> str:
        return f"v{self.number}" if self.number is not None else self.digest[:4]


@dataclass(frozen=True)
class Story:
    """A model over time."""

    model: str
    versions: list[StoryVersion]
    """Oldest first: by number, and those without one by the clock of who made them."""
    decisions: list[Decision]
    entries: list[Entry]
    notes: list[str] = field(default_factory=list)
    """What could not be found out."""

    @property
    def shown(self) -> StoryVersion:
        """The champion; the newest version when there is none."""
        champions = [version for version in self.versions if "champion" in version.aliases]
        return champions[0] if champions else self.versions[-1]

    @property
    def rival(self) -> StoryVersion | None:
        """What the shown version is compared with: the newest other one."""
        others = [version for version in self.versions if version is not self.shown]
        return others[-1] if others else None


def read_story(project: Project) -> Story:
    """Raises: MissingError when the store has no bundle at all."""
    model = project.settings.tracking.model_name
    decisions = Decisions(project.store, model)
    entries = [entry for entry in decisions.history()[0].entries if entry.state == "done"]
    decided = decisions.all()
    notes: list[str] = []
    numbers = {c.digest: c.version for d in decided for c in (d.challenger, d.champion) if c is not None}
    aliases: dict[int, tuple[str, ...]] = {entries[-1].version: ("champion",)} if entries else {}
    try:
        registered, pointed = _registry(project, model)
        numbers, aliases = numbers | registered, pointed or aliases
    except RcgError as error:
        notes.append(f"The registry does not answer, so aliases are read off the decisions alone: {error.what}.")
    versions = [_version(project.store, run, numbers, aliases) for run in bundles(project)]
    if not versions:
        raise MissingError(
            "there is no model to report on", got=f"no bundle in {project.store.uri}", fix="make one: rcg repro"
        )
    versions.sort(key=lambda v: (v.number if v.number is not None else 10**9, v.made_ms))
    return Story(model, versions, decided, entries, notes)


def _registry(project: Project, model: str) -> tuple[dict[str, int], dict[int, tuple[str, ...]]]:
    """(digest -> version, version -> aliases); empty when the registry is switched off."""
    if project.tracking is None:
        return {}, {}
    from flows.registry import look

    found = look(project.tracking, model)
    numbers = {tags["rcg.bundle_digest"]: number for number, tags in found.tags.items() if "rcg.bundle_digest" in tags}
    aliases: dict[int, tuple[str, ...]] = {}
    for alias, number in sorted(found.aliases.items()):
        aliases[number] = (*aliases.get(number, ()), alias)
    return numbers, aliases


def _version(
    store: Store, run: CommittedRun, numbers: Mapping[str, int], aliases: Mapping[int, tuple[str, ...]]
) -> StoryVersion:
    lineage = read_json_file(store, run, LINEAGE)
    kept = keep_context(store, run)
    known = Context.parse(kept, "context.json").stages if kept is not None else {}
    stages = {name: known[name] for name in KINDS if name in known}
    number = numbers.get(run.digest)
    chunks = lineage.get("collection", {}).get("chunks", [])
    return StoryVersion(
        number=number,
        digest=run.digest,
        aliases=aliases.get(number, ()) if number is not None else (),
        stages=stages,
        metrics=lineage["parents"].get("evaluate", {}).get("metrics", {}),
        n_pictures=sum(chunk["count"] for chunk in chunks),
        grid=_file(store, stages.get("sample"), "pictures/grid.png"),
        real=_file(store, stages.get("evaluate"), "pictures/real.png"),
        curves=dict(_curves(store, stages)),
        made_ms=run.record.ended_ms,
    )


def _curves(store: Store, stages: Mapping[str, Facts]) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    for stage in _CURVES:
        data = _file(store, stages.get(stage), "plots/loss.json")
        if data is not None:
            records = parse_json(data, "plots/loss.json")
            yield stage, [(float(r["step"]), float(r["loss"])) for r in records if "loss" in r]


def _file(store: Store, facts: Facts | None, name: str) -> bytes | None:
    """A file of a run; None when the run, or the file, has left the store."""
    run = open_run(store, facts)
    if run is None or name not in run.keys:
        return None
    try:
        return read_file(store, run, name)
    except ArtifactError:
        return None


def open_run(store: Store, facts: Facts | None) -> CommittedRun | None:
    """The intact run that the facts are about; None when it has left the store or is damaged."""
    if facts is None or facts.fingerprint is None:
        return None
    try:
        run = load_run(store, run_prefix(facts.stage, facts.fingerprint))
    except ArtifactError:
        return None
    return run if run is not None and run.digest == facts.content else None
