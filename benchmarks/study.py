"""`make study`: does a representation help? RCG against its baselines, with one generator, one budget and three seeds.

python -m benchmarks.study [NAME …]     digits (all that `make study` runs), clipart-mage, clipart-dit
python -m benchmarks.study smoke        every step in seconds, for nobody to quote

Arms differ in what the pixel generator is told, and in nothing else:

    rcg            a representation drawn by the RDM
    oracle         a representation of a real held-out (val) image: the upper bound for any RDM; the generator is rcg's
    unconditional  nothing
    class          the label
    cluster        the k-means cluster of the representation

All seeds share one encoder, hence one encode artifact: the study is about the generators. A seed sets initial weights,
data order and noise of RDM and generator, and the noise of sampling. Options are chosen per arm from one grid, by the
Frechet distance to the val split with the first seed; the numbers of the table are taken once, on the test split.
Every run is an ordinary run of the pipeline's stages, kept in the store: killed and started again, the study continues.
"""

import contextlib
import copy
import json
import logging
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.study_results import About, Options, Result, Study, named, write_results
from components.collection.snapshot import take_snapshot
from components.collection.source import open_source
from components.metrics import judge
from flows.execution.project import Project
from flows.execution.work import Doing, make_spec, run_and_publish
from flows.identity.environment import git_state
from flows.pipeline.params import check_params, read_yaml
from flows.pipeline.table import pipeline
from flows.runs.records import CommittedRun

TEST_SEED = 1000  # sampling seeds of the reported numbers, apart from those that chose the options

Sections = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """What the generator is told in training, and where representations come from in sampling."""

    name: str
    condition: str
    representations: str | None

    @property
    def guides(self) -> bool:
        return self.condition != "none"


ARMS = (
    Arm("rcg", "representation", "rdm"),
    Arm("oracle", "representation", "oracle"),
    Arm("unconditional", "none", None),
    Arm("class", "class", None),
    Arm("cluster", "cluster", None),
)
SAMPLERS: tuple[Options, ...] = (
    {"sampler": "ddim", "eta": 0.0},
    {"sampler": "ddim", "eta": 1.0},  # the ancestral one
    {"sampler": "dpm_solver_2m", "eta": 0.0},
)


@dataclass(frozen=True)
class Plan:
    """What is run, and where to."""

    about: About
    preset: Path
    source: str
    workspace: Path
    out: Path
    seeds: tuple[int, ...]
    guidance: tuple[float, ...]
    samplers: tuple[Options, ...]
    arms: tuple[Arm, ...] = ARMS
    pixel_steps: int | None = None
    """Steps of the pixel generator's training, where the preset's would take too long nine times."""


_N_CLUSTERS = 30
_DIGITS = Plan(
    about=About(
        "digits", "RCG and its baselines on handwritten digits", "make study", {"unconditional": 0.5, "class": 1.15}
    ),
    preset=Path("presets/digits.yaml"),
    source="demo",
    workspace=Path(".rcg/study"),
    out=Path("docs/results"),
    seeds=(0, 1, 2),
    guidance=(0.0, 0.5, 1.0, 2.0),
    samplers=SAMPLERS,
)
_CLIPART = replace(
    _DIGITS,
    source="data/clipart",  # `make clipart`
    guidance=(0.0, 1.0),
    samplers=({},),
    arms=tuple(arm for arm in ARMS if arm.name in ("rcg", "unconditional")),
    pixel_steps=1200,
)
PLANS = {
    "digits": _DIGITS,
    "clipart-mage": replace(
        _CLIPART,
        about=About("clipart-mage", "RCG against nothing on color clip art: MAGE", "make study-clipart", {}),
        preset=Path("presets/clipart.yaml"),
        workspace=Path(".rcg/study-clipart-mage"),
    ),
    "clipart-dit": replace(
        _CLIPART,
        about=About("clipart-dit", "RCG against nothing on color clip art: DiT on pixels", "make study-clipart", {}),
        preset=Path("presets/clipart-dit.yaml"),
        workspace=Path(".rcg/study-clipart-dit"),
    ),
    "smoke": replace(
        _DIGITS,
        about=About("smoke", "Every step of the study, in seconds", "python -m benchmarks.study smoke", {"class": 2.0}),
        preset=Path("presets/smoke.yaml"),
        workspace=Path(".rcg/study-smoke"),
        out=Path(".rcg/study-smoke/results"),
        seeds=(0,),
        guidance=(0.0, 1.0),
        samplers=SAMPLERS[:2],
    ),
}


class Runner:
    """Runs stages one after the other in a workspace of their own, and reads what they made."""

    def __init__(self, plan: Plan) -> None:
        self.root, self.source, self.project = plan.workspace, plan.source, Project.here()
        self.sections: Sections = check_params(read_yaml(plan.preset), str(plan.preset)).model_dump(mode="json")
        if plan.pixel_steps is not None:
            self.sections["pixels"]["train"]["steps"] = plan.pixel_steps
        root = self.root
        root.mkdir(parents=True, exist_ok=True)
        take_snapshot(open_source(self.source), root / "collection.lock", rebuild=False)
        self.lock = (root / "collection.lock").read_text()
        self.doing: Doing = self.project.doing(context=git_state(self.project.root), tracked=False)
        self.started = time.monotonic()

    def run(self, stage: str, section: Sections | None = None) -> CommittedRun:
        """Do the stage, or find it done."""
        params = self.sections[stage] if section is None else section
        kind = pipeline(self.sections | {stage: params})[stage]
        lock = None if kind.needs else self.lock
        spec = make_spec(kind, params, self.project.store, self.root, source=self.source, lock=lock)
        before = time.monotonic()
        quiet = stage in ("sample", "evaluate")  # many and short
        doing = replace(self.doing, open_log=None) if quiet else self.doing
        outcome = run_and_publish(kind, spec, self.root, doing)
        now = time.monotonic()
        print(f"[{(now - self.started) / 60:5.1f} min] {stage:8} {outcome.how:8} {now - before:6.1f} s", flush=True)
        return outcome.run

    def metrics(self, stage: str) -> dict[str, float]:
        found: dict[str, float] = json.loads((self.root / "artifacts" / stage / "metrics.json").read_text())
        return found

    def train(self, condition: str, seed: int) -> None:
        """The generator of one seed, after the RDM where it reads representations."""
        if condition == "representation":
            self.run("rdm", seeded(self.sections["rdm"], seed))
        section = seeded(self.sections["pixels"], seed)
        told = {"port": "vector", "drop_prob": section["model"]["conditions"][0]["drop_prob"]}
        own = {
            "representation": {"project": True},
            "class": {"missing": "null"},
            "cluster": {"n_clusters": _N_CLUSTERS},
        }
        conditions = [{"kind": condition, **told, **own[condition]}] if condition in own else []
        section["model"]["conditions"] = conditions
        if condition == "none":
            section["preview"]["sampling"]["guidance"] = 0.0
        self.run("pixels", section)

    def measure(self, arm: Arm, seed: int, options: Options, split: str) -> dict[str, float]:
        """Sample and evaluate what was trained last."""
        section = copy.deepcopy(self.sections["sample"])
        section |= {"representations": arm.representations, "seed": seed}
        if arm.representations is None:
            section["rdm"] = None
        section["pixels"] |= options
        self.run("sample", section)
        self.run("evaluate", self.sections["evaluate"] | {"split": split})
        return self.metrics("evaluate")


@contextlib.contextmanager
def judge_fitted_once() -> Iterator[None]:
    """Within: train the network that measures once, as it is the same for all arms, seeds and options of a study."""
    fit, found = judge.fit_network, dict[Any, Any]()

    def fit_or_recall(config: Any, task: Any, images: Any, n_classes: int, how: Any, worker: Any, *, seed: int) -> Any:
        key = (config, task, images.px, len(images), n_classes, how, seed)
        if key not in found:
            found[key] = fit(config, task, images, n_classes, how, worker, seed=seed)
        return found[key]

    judge.fit_network = fit_or_recall
    try:
        yield
    finally:
        judge.fit_network = fit


def seeded(section: Sections, seed: int) -> Sections:
    """The section with another seed for weights, data order and noise."""
    changed = copy.deepcopy(section)
    changed["seed"] = changed["train"]["seed"] = seed
    return changed


def grid(plan: Plan, arm: Arm, sampling: Sections) -> list[Options]:
    """The options to choose from. Guidance changes nothing without a condition, so there the grid has fewer points."""
    samplers = [options for options in plan.samplers if options.keys() <= sampling.keys()] or [{}]
    guidance = plan.guidance if arm.guides else plan.guidance[:1]
    return [{**sampler, "guidance": g} for sampler in samplers for g in guidance]


def choose(runner: Runner, plan: Plan, arm: Arm) -> tuple[Options, list[tuple[Options, float]]]:
    """The options nearest to the val split, and all that were tried. The arm's generator must be the one in place."""
    points = grid(plan, arm, runner.sections["sample"]["pixels"])
    tried = [(options, runner.measure(arm, plan.seeds[0], options, "val")["fd"]) for options in points]
    best = min(tried, key=lambda pair: pair[1])[0]
    print(f"{arm.name}: " + ", ".join(f"{named(options)}: {fd:.3g}" for options, fd in tried), flush=True)
    return best, tried


@judge_fitted_once()
def run_study(plan: Plan) -> Study:
    """All arms and seeds."""
    runner = Runner(plan)
    for stage in ("collect", "encoder", "codec", "encode"):
        runner.run(stage)
    run = runner.sections["pixels"]["train"]
    budget = f"{run['steps']:,} steps of {run['batch_size']} images (preset {plan.preset.stem})"
    study = Study(plan.about, budget, encoder=runner.metrics("encoder"))
    for condition in dict.fromkeys(arm.condition for arm in plan.arms):
        arms = [arm for arm in plan.arms if arm.condition == condition]
        for seed in plan.seeds:
            runner.train(condition, seed)
            for arm in arms:
                if seed == plan.seeds[0]:
                    study.chosen[arm.name], study.tried[arm.name] = choose(runner, plan, arm)
                metrics = runner.measure(arm, TEST_SEED + seed, study.chosen[arm.name], "test")
                study.results.append(Result(arm.name, seed, metrics))
                if seed == plan.seeds[0]:
                    study.pictures[arm.name] = (plan.workspace / "artifacts/sample/pictures/grid.png").read_bytes()
                print(f"{arm.name} seed {seed}: FD {metrics['fd']:.3g} (floor {metrics['fd_floor']:.3g})", flush=True)
    return study


def main(wanted: list[str]) -> int:
    """Each study that is named (digits unless one is) -> docs/results/NAME.md and its pictures."""
    logging.basicConfig(level=logging.WARNING)
    unknown = [name for name in wanted if name not in PLANS]
    if unknown:
        print(f"no such study: {', '.join(unknown)}; there are {', '.join(PLANS)}", file=sys.stderr)
        return 2
    for name in wanted or ["digits"]:
        plan, started = PLANS[name], time.monotonic()
        study = run_study(plan)
        print(f"wrote {write_results(study, plan.out, minutes=(time.monotonic() - started) / 60)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
