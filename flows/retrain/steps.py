"""The eight steps. Each looks first at what an interrupted run has left, so that repeating it changes nothing.

1 lock · 2 snapshot and journal · 3 branch and commit · 4 repro · 5 commit and push the results · 6 gate
7 fast-forward · 8 close the journal
"""

import configparser
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from components.collection.lock import Lock, read_lock
from components.collection.snapshot import Snapshot, take_snapshot
from components.collection.source import open_source
from components.errors import ConfigError, DataError
from flows.execution.dvc import dvc_command, dvc_env, repro
from flows.execution.parallel import repro_parallel
from flows.execution.project import Project
from flows.execution.registration import register_bundle
from flows.gate.champion import now_ms, open_aliases, who
from flows.gate.promotion import Outcome, promote
from flows.identity.artifact import canonical_json, digest_of
from flows.identity.closure import module_digests
from flows.identity.fingerprint import LOCK
from flows.pipeline.params import check_params
from flows.pipeline.plan import FILE as PLAN
from flows.pipeline.plan import write_plan
from flows.registry import CHAMPION
from flows.retrain.branch import check_branch
from flows.retrain.checkout import Checkout, run
from flows.retrain.journal import End, Journal, Journals, new_journal
from flows.retrain.lock import Check, RunLock
from flows.retrain.resolve import Artifacts, Resolved, resolve_params
from flows.runs.records import read_file
from flows.yaml_files import parse_yaml

PARAMS = "params.yaml"
_log = logging.getLogger(__name__)
Pause = Callable[[str], None]
"""Called with the name of each step that is done; tests end the process there."""


@dataclass(frozen=True)
class Result:
    """What a retraining came to. `end` is None when there was nothing to do."""

    end: End | None
    text: str


def retrain(project: Project, lock: RunLock, *, after: Pause = lambda _: None) -> Result:
    """Go on with the retraining that the journal names, or begin one if enough new images came.

    Raises: ConflictError naming who retrains already; what the stages, git or the gate raise. The same command goes on.
    """
    with lock.held() as check:
        after("lock")
        return _Retraining(project, check, after).result()


class _Retraining:
    def __init__(self, project: Project, check: Check, after: Pause) -> None:
        self.project, self.check, self.after = project, check, after
        self.checkout, self.journals = Checkout(project.root), Journals(project.store)

    def result(self) -> Result:
        check_branch(self.checkout, self.checkout.head())
        journal, _ = self.journals.read()
        if journal is None or journal.end is not None:
            opened = self._open(journal)
            if isinstance(opened, Result):
                return opened
            journal = opened
        else:
            _log.info("going on with %s, begun by %s", journal.branch, journal.who)
        self.after("snapshot")
        return self._go_on(journal)

    def _open(self, last: Journal | None) -> Journal | Result:
        """Step 2."""
        project, checkout = self.project, self.checkout
        target, base = checkout.target(), checkout.head()
        if checkout.is_dirty():
            _log.info("files that are edited here are left out: retraining starts from commit %s", base[:10])
        _, aliases = open_aliases(project)
        with TemporaryDirectory(prefix="rcg-retrain-", ignore_cleanup_errors=True) as folder:
            path = Path(folder, LOCK)
            old = self._write_committed(base, path)
            found = take_snapshot(open_source(project.settings.source), path, rebuild=False)
            text = self._committed_params(base)
            params = check_params(parse_yaml(text, PARAMS), PARAMS).retrain
            fewest = params.min_new_images
            if found.n_new < fewest:
                return Result(None, f"no change: {found.n_new} new image(s), {fewest} wanted")
            lock = read_lock(path)
            resolved = resolve_params(params, text, lock, aliases.of(CHAMPION), Artifacts(project))
            journal = self._journal(base, target, lock, found, resolved, old)
            if last is not None and last.key == journal.key:
                return Result(None, f"no change since {last.branch} ({last.end}): {last.told}")
            files = {LOCK: path.read_bytes(), PARAMS: resolved.text.encode()}
            self.check()
            self.journals.open(journal, files)
        _log.info("%d new image(s), on branch %s", found.n_new, journal.branch)
        for line in resolved.why:
            _log.info("%s", line)
        return journal

    def _write_committed(self, base: str, path: Path) -> set[str]:
        """collection.lock of the commit; returns the names of its chunks."""
        data = self.checkout.show(base, LOCK)
        if data is None:
            return set()
        path.write_bytes(data)
        return {chunk.name for chunk in read_lock(path).chunks}

    def _committed_params(self, base: str) -> str:
        data = self.checkout.show(base, PARAMS)
        if data is None:
            raise ConfigError(f"{PARAMS} is not committed", got=f"commit {base[:10]}", fix=f"git add {PARAMS}")
        return data.decode()

    def _journal(
        self, base: str, target: str, lock: Lock, found: Snapshot, resolved: Resolved, old: set[str]
    ) -> Journal:
        check_params(parse_yaml(resolved.text, PARAMS), PARAMS)
        key = digest_of(canonical_json([lock.identity, resolved.text, base]))
        return new_journal(
            key=key,
            base=base,
            target=target,
            n_new=found.n_new,
            why=resolved.why,
            who=who(),
            time_ms=now_ms(),
            chunks=[chunk.name for chunk in lock.chunks if chunk.name not in old],
        )

    def _go_on(self, journal: Journal) -> Result:
        """Steps 3 to 8."""
        work = _Branch(self.project, self.checkout, journal)
        work.commit_inputs({name: self.journals.file(journal, name) for name in (LOCK, PARAMS)})
        self.after("branch")
        work.check_code()
        work.repro("collect")
        usable = work.n_usable()
        if usable < work.project.params.retrain.min_new_images:
            return self._close(work, "unusable", f"only {usable} of {journal.n_new} new image(s) can be used")
        work.repro_rest()
        self.after("repro")
        self.check()
        work.commit_results()
        self.after("results")
        outcome = work.judge()
        _log.info("%s", outcome.text)
        self.after("gate")
        self.check()
        return self._end(work, outcome)

    def _end(self, work: "_Branch", outcome: Outcome) -> Result:
        """Steps 7 and 8."""
        journal = work.journal
        if outcome.result in ("refused", "held", "void"):
            end: End = "refused" if outcome.result == "refused" else "held"
            return self._close(work, end, f"{journal.target} stays as it is; branch {journal.branch} has what was made")
        reason = self.checkout.fast_forward(journal.branch, journal.target)
        self.after("forward")
        if reason is None:
            return self._close(work, "promoted", f"{journal.target} is at {journal.branch} now")
        told = f"{journal.target} was not fast-forwarded: {reason}. Nothing is lost: merge branch {journal.branch}"
        return self._close(work, "promoted", told)

    def _close(self, work: "_Branch", end: End, told: str) -> Result:
        self.checkout.remove_worktree(work.journal.branch)
        self.journals.close(work.journal, end, told)
        self.after("close")
        return Result(end, f"{end}: {told}")


class _Branch:
    """The branch of a retraining, checked out in a folder of its own."""

    def __init__(self, project: Project, checkout: Checkout, journal: Journal) -> None:
        self.journal, self._main, self._checkout = journal, project, checkout
        check_branch(checkout, checkout.tip(journal.branch) or journal.base)
        self.folder = checkout.worktree(journal.branch, journal.base)
        _share_caches(project.root, self.folder)

    @cached_property
    def project(self) -> Project:
        """The branch as a project: the same store, source and registry, named so that any folder finds them."""
        main = self._main
        changes: dict[str, object] = {"store": main.store.uri, "source": main.settings.source}
        if main.tracking is not None:
            changes["tracking"] = main.settings.tracking.model_copy(update={"mlflow_uri": main.tracking.uri})
        return Project(self.folder, main.settings.model_copy(update=changes))

    @property
    def env(self) -> dict[str, str]:
        settings = self.project.settings
        env = {
            "RCG_STORE": settings.store,
            "RCG_SOURCE": settings.source,
            "RCG_MLFLOW_URI": settings.tracking.mlflow_uri,
        }
        profile = os.environ.get("RCG_PROFILE")
        return env | ({"RCG_PROFILE": str(Path(profile).absolute())} if profile else {})

    def commit_inputs(self, files: dict[str, bytes]) -> None:
        """Step 3. dvc.yaml holds commands, so it is written by this installation and never taken from the branch."""
        for name, data in files.items():
            (self.folder / name).write_bytes(data)
        write_plan(self.folder)
        message = f"Collection with {self.journal.n_new} new image(s)\n\n" + "\n".join(self.journal.why)
        self._checkout.commit(self.folder, [*files, PLAN], message)
        self._checkout.push(self.journal.branch)

    def check_code(self) -> None:
        """Raises: ConfigError when the code that would run is not that of the commit."""
        other = [
            stage.name
            for stage in self.project.stages.values()
            if module_digests(stage.module, self.folder) != module_digests(stage.module)
        ]
        if other:
            raise ConfigError(
                "the code of this installation is not that of the commit that is retrained",
                got=f"other code for {', '.join(other)}",
                expected=f"the code of commit {self.journal.base[:10]}",
                fix="commit your edits; in a cluster, build the image of that commit (make image) and use it",
            )

    def repro(self, *arguments: str) -> None:
        """Step 4, or a part of it."""
        self._raise_for(repro(list(arguments), self.folder, self.env), arguments)

    def _raise_for(self, code: int, arguments: tuple[str, ...]) -> None:
        if code != 0:
            what = f"`rcg repro {' '.join(arguments)}` failed on branch {self.journal.branch}"
            raise DataError(what, got=f"exit code {code}", fix="mend what it says above; the same command goes on")

    def repro_rest(self) -> None:
        """With rdm and pixels side by side where stages run elsewhere; in one process they would only share its CPU."""
        if self.project.settings.executor == "kuberay":
            code = repro_parallel([], self.project.stages, self.folder, self.env)
        else:
            code = repro([], self.folder, self.env)
        self._raise_for(code, ())

    def n_usable(self) -> int:
        """New images that are in a split: neither rejected nor left out."""
        from components.collection.images import index_name, read_index
        from components.collection.splits import LEFT_OUT

        run, n = self.project.committed("collect"), 0
        for chunk in self.journal.chunks:
            table = read_index(read_file(self.project.store, run, index_name(chunk)), index_name(chunk))
            n += sum(split != LEFT_OUT for split in table["split"].to_pylist())
        return n

    def commit_results(self) -> None:
        """Step 5. Raises: RetryableError when a remote does not take it."""
        self._checkout.commit(self.folder, ["dvc.lock"], "Results of the retraining")
        if _has_remote(self.folder):
            run([*dvc_command(), "push", "-q"], self.folder, dvc_env(self.folder) | self.env)
        self._checkout.push(self.journal.branch)

    def judge(self) -> Outcome:
        """Step 6."""
        _log.info("%s", register_bundle(self.project))
        return promote(self.project, number=None, dry_run=False)


def _has_remote(folder: Path) -> bool:
    """Whether DVC has somewhere to push to."""
    config = configparser.ConfigParser()
    config.read([folder / ".dvc" / "config", folder / ".dvc" / "config.local"])
    return config.has_option("core", "remote")


def _share_caches(root: Path, folder: Path) -> None:
    """The worktree uses the checkout's DVC cache and its local configuration, and knows its images."""
    config = configparser.ConfigParser()
    local = root / ".dvc" / "config.local"
    config.read(local)
    if not config.has_section("cache"):
        config.add_section("cache")
    if not config.has_option("cache", "dir"):
        config.set("cache", "dir", str(root / ".dvc" / "cache"))
    (folder / ".dvc").mkdir(exist_ok=True)
    with (folder / ".dvc" / "config.local").open("w") as file:
        config.write(file)
    images = root / ".rcg" / "images.json"
    if images.is_file():
        (folder / ".rcg").mkdir(exist_ok=True)
        (folder / ".rcg" / "images.json").write_bytes(images.read_bytes())
