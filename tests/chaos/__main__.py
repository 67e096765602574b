"""`make test-chaos`: every trial of the harness, as many as fit into the time; totals go to docs/results/chaos.md.

Trials that are done are kept in build/chaos.jsonl, by the code that they tried: the same command goes on.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from flows.identity.artifact import canonical_json, digest_of
from flows.identity.closure import module_digests
from tests.chaos.moments import MOMENTS, kill_moments
from tests.chaos.trees import TREES, Checkout, kill_trees
from tests.support.chaos import Finding, Rig

ROOT = Path(__file__).parents[2]
DONE = ROOT / "build/chaos.jsonl"
RESULTS = ROOT / "docs/results/chaos.md"
_KINDS = {
    "kill": "the process is killed at a file operation of a stage",
    "ENOSPC": "the disk is full at a file operation that changes something",
    "EIO": "the disk fails at a file operation, reading too",
    "byte of a finished run": "one bit of an object of a finished run is another",
    "byte of an interrupted run": "one bit of an object of a run that was killed is another",
    TREES: "`rcg repro` with all its processes is killed at a file operation of DVC",
    MOMENTS: "`rcg repro` of every stage with all its processes is killed, ended or interrupted at a random moment",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800, help="begin no trial after so many seconds")
    parser.add_argument("--trials", type=int, default=600, help="at most so many forked trials")
    parser.add_argument("--trees", type=int, default=30, help="at most so many kills of whole trees")
    parser.add_argument("--moments", type=int, default=40, help="at most so many of them at random moments")
    parser.add_argument("--afresh", action="store_true", help="forget what earlier calls tried")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # or what is started in the background ignores it for ever
    code = digest_of(canonical_json(module_digests("flows.commands.table")))
    if options.afresh:
        DONE.unlink(missing_ok=True)
    done = dict(_done(code))
    until = time.monotonic() + options.seconds
    with tempfile.TemporaryDirectory(prefix="rcg-chaos-") as scratch:
        for finding in _findings(Path(scratch), options, done, until):
            done[finding.name] = finding
            _keep(code, finding)
            if not finding.passed:
                sys.stdout.write(f"{finding.name}: {finding.outcome}\n{finding.text}\n")
    text = report(list(done.values()))
    RESULTS.write_text(text)
    sys.stdout.write(text)
    return int(any(not finding.passed for finding in done.values()))


def _findings(scratch: Path, options: argparse.Namespace, done: dict[str, Finding], until: float) -> Iterator[Finding]:
    if options.trials:
        rig = Rig(scratch).prepare()
        for trial in rig.trials()[: options.trials]:
            if time.monotonic() > until:
                return
            if trial.name not in done:
                yield rig.run(trial)
    checkout = Checkout(scratch / "trees").prepare()
    for name, run in kill_trees(checkout, options.trees) if options.trees else ():
        if time.monotonic() > until:
            return
        if name not in done:
            yield run()
    for findings in kill_moments(checkout, set(done), options.moments):
        yield from findings
        if time.monotonic() > until:
            return


def _done(code: str) -> Iterator[tuple[str, Finding]]:
    for line in DONE.read_text().splitlines() if DONE.is_file() else ():
        values = json.loads(line)
        if values.pop("code") == code:
            yield values["name"], Finding(**values)


def _keep(code: str, finding: Finding) -> None:
    DONE.parent.mkdir(exist_ok=True)
    values = {"code": code, "name": finding.name, "outcome": finding.outcome, "text": finding.text[-4000:]}
    with DONE.open("a") as file:
        file.write(json.dumps(values) + "\n")
        file.flush()
        os.fsync(file.fileno())


def report(findings: list[Finding]) -> str:
    """docs/results/chaos.md."""
    lines = [
        "# Chaos\n",
        "What `make test-chaos` tried and what came of it. `same`: the same command, run again, gave the same bytes.",
        "`named`: an error of the project said what is wrong, with its exit code. Anything else is a failure.\n",
        "| what goes wrong | trials | same | named | failed |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind, words in _KINDS.items():
        outcomes = Counter(_word(f) for f in findings if f.name.startswith(f"{kind} "))
        lines.append(
            f"| {words} | {outcomes.total()} | {outcomes['same']} | {outcomes['named']} | {outcomes['failed']} |"
        )
    failed = [f"- {finding.name}: {finding.outcome}" for finding in findings if not finding.passed]
    return "\n".join([*lines, *(["", "Failed:", "", *sorted(failed)] if failed else []), ""])


def _word(finding: Finding) -> str:
    return finding.outcome if finding.passed else "failed"


if __name__ == "__main__":
    sys.exit(main())
