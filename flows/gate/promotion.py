"""`rcg promote`: measure champion and challenger alike, decide, record, move the alias.

What measures is imported by the decision that needs it: it loads torch, and whoever asks for a known decision does not.
"""

import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from components.errors import MissingError
from flows.execution.project import Project
from flows.gate.champion import ROLLED_BACK, Champion, deciding, now_ms, open_aliases, who
from flows.gate.decisions import Contestant, Decision, Entry
from flows.gate.drawing import draw_images, fetch_bundle
from flows.gate.verdict import JUDGE, checks
from flows.identity.artifact import SCHEMA, canonical_json, digest_of
from flows.identity.closure import module_digests
from flows.registry import CHALLENGER, CHAMPION, Aliases, Version
from flows.runs.records import find_run
from flows.runs.stored import StoredArtifact
from flows.tracking import Tracking

if TYPE_CHECKING:
    from flows.gate.reference import Drawn, Reference

Begin = Callable[[str], None]
"""Is told what begins."""
Result = Literal["promoted", "refused", "champion", "held", "void"]
_MEASURED_BY = "flows.gate.reference"
N_PHASES = 4
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """The outcome. champion: it was that already; held: a tag forbids it; void: the alias was moved by hand."""

    result: Result
    text: str
    decision: Decision | None = None


def promote(project: Project, *, number: int | None, dry_run: bool, begin: Begin = _log.info) -> Outcome:
    """Judge the challenger, or version `number`; with dry_run nothing is written anywhere.

    `begin` is told each of the N_PHASES phases of measuring.
    """
    tracking, aliases = open_aliases(project)
    if dry_run:
        challenger, present = _pair(aliases, number)
        decision = _Gate(project, tracking, challenger, present, begin).decide(0)
        return Outcome(decision.verdict, f"dry run, nothing is changed\n{describe(decision)}", decision)
    with deciding(project.store, aliases) as champion:
        return _promote(project, tracking, champion, number, begin)


def _promote(project: Project, tracking: Tracking, champion: Champion, number: int | None, begin: Begin) -> Outcome:
    aliases = champion.aliases
    challenger, present = _pair(aliases, number)
    name = f"models:/{aliases.name}/{challenger.number}"
    if present is not None and present.number == challenger.number:
        return Outcome("champion", f"{name} is the champion already")
    held = aliases.held(challenger)
    if held is None and number is None and challenger.tags.get(ROLLED_BACK):
        held = f"it was rolled back {challenger.tags[ROLLED_BACK]}; --version {challenger.number} insists"
    if held is not None:
        return Outcome("held", f"{name} is not promoted: {held}")
    gate = _Gate(project, tracking, challenger, present, begin)
    decision = next((d for d in champion.decisions.all() if d.question == gate.question), None)
    if decision is None:
        decision = gate.decide(champion.decisions.next_number())
        champion.decisions.add(decision)
    aliases.tag(challenger.number, _tags(decision))
    if decision.verdict == "refused":
        return Outcome("refused", describe(decision), decision)
    entry = champion.change("promote", challenger, present, decision.number)
    return _told(entry, decision)


def _told(entry: Entry, decision: Decision) -> Outcome:
    if entry.state == "void":
        return Outcome("void", f"{describe(decision)}\nnot carried out: {entry.why}", decision)
    return Outcome("promoted", describe(decision), decision)


def _pair(aliases: Aliases, number: int | None) -> tuple[Version, Version | None]:
    """Challenger and champion. Raises: MissingError when there is no challenger."""
    challenger = aliases.of(CHALLENGER) if number is None else aliases.version(number)
    if challenger is None:
        raise MissingError(
            "there is no challenger to promote",
            got=f"no alias {CHALLENGER} of {aliases.name} in {aliases.uri}",
            fix="`rcg register` registers artifacts/bundle as the challenger, or name a --version",
        )
    return challenger, aliases.of(CHAMPION)


class _Gate:
    """One decision about two versions."""

    def __init__(
        self,
        project: Project,
        tracking: Tracking,
        challenger: Version,
        champion: Version | None,
        begin: Begin,
    ) -> None:
        self.project, self.tracking = project, tracking
        self.challenger, self.champion, self.begin = challenger, champion, begin
        self.params, self.name = project.params.gate, project.settings.tracking.model_name

    @property
    def question(self) -> str:
        """What is asked, before anything is measured."""
        rivals = [None if v is None else [v.number, v.digest] for v in (self.challenger, self.champion)]
        code = module_digests(_MEASURED_BY)
        params = [p.model_dump(mode="json") for p in (self.params, self.project.params.evaluate)]
        return digest_of(canonical_json([self.name, rivals, params, code]))

    def decide(self, number: int) -> Decision:
        """Raises: MissingError, TamperedError, ArtifactError for a bundle or a collection that is not as it was."""
        from components.training.checkpoint import lone_worker
        from flows.executors.base import fit_threads, pick_device
        from flows.gate.reference import Reference

        device = pick_device(self.project.settings.worker.device)
        rivals = [v for v in (self.challenger, self.champion) if v is not None]
        self.begin(f"fetching {len(rivals)} bundle(s)")
        folders = [fetch_bundle(self.tracking, self.name, v, self.project.models, self.project.store) for v in rivals]
        self.begin(f"sampling {self.params.n:,} images of each")
        images = [draw_images(folder, self.params.n, self.params.seed, device.type) for folder in folders]
        self.begin("training the network that measures")
        with tempfile.TemporaryDirectory(prefix="rcg-gate-", ignore_cleanup_errors=True) as folder:
            scratch = Path(folder)
            worker = lone_worker(
                device, scratch, threads=self.project.settings.worker.threads, fit_threads=fit_threads()
            )
            collections = [self._collection(v, scratch / str(i)) for i, v in enumerate(rivals)]
            reference = Reference(
                self.project.params.evaluate,
                collections[0],
                collections[1] if self.champion else None,
                self.project.settings.source,
                worker,
                images[0].shape[1],
            )
            self.begin("comparing")
            return self._decision(number, reference, [reference.see(drawn) for drawn in images])

    def _collection(self, version: Version, scratch: Path) -> StoredArtifact:
        digest = version.tags.get("rcg.content.collect", "")
        run = find_run(self.project.store, "collect", digest)
        if run is None:
            raise MissingError(
                f"the collection that version {version.number} was trained on is not in the store",
                got=f"no collect artifact with content {digest[:10]} in {self.project.store.uri}",
                fix="`rcg data copy --from` the store that has it",
            )
        return StoredArtifact(self.project.store, run, scratch)

    def _decision(self, number: int, reference: "Reference", drawn: "list[Drawn]") -> Decision:
        contestants = [
            Contestant(
                version=version.number,
                digest=version.digest,
                collection=version.tags["rcg.content.collect"],
                metrics=reference.metrics(vectors),
            )
            for version, vectors in zip((self.challenger, self.champion), drawn, strict=False)
            if version is not None
        ]
        first = self.champion is None
        blind = reference.sight.reasons
        differences = {} if first or blind else reference.differences(drawn[1], drawn[0], self.params)
        found = checks(self.params, contestants[0].metrics, differences, first=first, blind=blind)
        return Decision(
            schema_version=SCHEMA,
            number=number,
            model=self.name,
            question=self.question,
            verdict="promoted" if all(check.passed for check in found) else "refused",
            challenger=contestants[0],
            champion=None if first else contestants[1],
            checks=found,
            differences=differences,
            thresholds=self.params.model_dump(mode="json"),
            protocol=reference.protocol | {"real": reference.floors(self.params.n)},
            notes=_notes(reference),
            who=who(),
            time_ms=now_ms(),
        )


def _notes(reference: "Reference") -> list[str]:
    n_seen = int(reference.seen.sum())
    if not n_seen:
        return []
    return [f"{n_seen} held-out images were training images of the champion and are left out of the comparison"]


def _tags(decision: Decision) -> dict[str, str]:
    """Shown beside the version in the registry's own pages."""
    tags = {
        "rcg.gate.verdict": decision.verdict,
        "rcg.gate.decision": str(decision.number),
        "rcg.gate.who": decision.who,
        "rcg.gate.failed": "; ".join(check.text for check in decision.checks if not check.passed) or "none",
    }
    if any(check.name == JUDGE for check in decision.checks):
        return tags  # numbers of a judge that is blind are kept in the record, and shown nowhere
    tags |= {f"rcg.gate.{name}": f"{value:.6g}" for name, value in decision.challenger.metrics.items()}
    intervals = decision.differences.items()
    return tags | {
        f"rcg.gate.difference.{part}": f"{d.value:+.4g} ({d.low:+.4g} … {d.high:+.4g})" for part, d in intervals
    }


def describe(decision: Decision) -> str:
    """The verdict and its reasons as lines."""
    against = "the first model" if decision.champion is None else f"against version {decision.champion.version}"
    lines = [f"version {decision.challenger.version} of {decision.model} is {decision.verdict} ({against})"]
    lines += [f"  {'ok  ' if check.passed else 'FAIL'} {check.text}" for check in decision.checks]
    return "\n".join([*lines, *(f"  note {note}" for note in decision.notes)])
