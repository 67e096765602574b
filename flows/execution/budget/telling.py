"""What `rcg init` says: what it saw, chose and why, what to expect, and what more time or a GPU would change."""

from collections.abc import Iterator

from flows.execution.budget.plan import Plan, gpu_minutes, minutes_for, needed
from flows.execution.budget.recipe import GUIDANCE, PAINTER_STEPS, SIZES, dim, n_features, n_train
from flows.execution.budget.speeds import Speeds
from flows.execution.budget.survey import NEAR_BITS, Survey
from flows.runs.ancestry import spoken_duration

_BUSY = 1.3
_RECOGNIZABLE = 120_000
"""Pictures seen at 32 px after which clocks, faces and flags were recognized (docs/LOG.md)."""


def seen_lines(survey: Survey) -> Iterator[str]:
    """The collection."""
    kind = "gray" if survey.channels == 1 else "color" if survey.color == 1 else f"{survey.color:.0%} in color"
    yield f"{survey.n} pictures, {kind}; shorter sides from {survey.smallest} px, half of them {survey.side} and more"
    said = {
        "metadata": f"{survey.n_classes} labels in metadata",
        "folder": f"{survey.n_classes} folders, taken as labels",
        "none": "no labels",
    }[survey.labels]
    captions = f"; {survey.n_captioned} have captions, which are kept" if survey.n_captioned else ""
    yield f"{said}: labels serve the evaluation alone{captions}"
    if survey.elongated:
        yield f"warning: {survey.elongated:.0%} are more than twice as long as wide; only their center square is used"
    if survey.near_bits < NEAR_BITS:
        bits = f"within {survey.near_bits} of 128 bits, not {NEAR_BITS}"
        yield f"warning: many are small figures that look alike at a glance; near-duplicates are taken {bits}"
    if survey.constant:
        yield f"warning: {survey.constant:.0%} are of one color and have no representation; they are left out"
    if survey.unreadable:
        yield f"warning: {survey.unreadable:.0%} cannot be read; they are left out and named in rejects.json"


def plan_lines(survey: Survey, speeds: Speeds, plan: Plan) -> Iterator[str]:
    """What was chosen, and why."""
    others = [size for size in speeds.pixels_s if size > plan.size]
    why = (
        f"the largest at which the painter sees {needed(plan.size):,} pictures and more in the time"
        if needed(plan.size)
        else "the smallest: the time is short"
    )
    if not others:
        why = f"the pictures themselves are {survey.side} px" if plan.size != max(SIZES) else "the largest"
    yield f"size      {plan.size} px: {why}"
    if survey.encoder is None:
        yield f"encoder   MoCo v3 ViT, trained on your pictures: {plan.steps['encoder']:,} steps"
    else:
        file, axes = survey.encoder["weights"]["uri"], dim(survey)
        yield f"encoder   {survey.encoder['name']} of {file}, not trained; {axes} axes of its {survey.encoder['dim']}"
    yield f"codec     none: at {plan.size} px the painter works on the pixels"
    yield f"encode    {plan.n_views} view(s) of each training picture"
    yield f"rdm       residual MLP: {plan.steps['rdm']:,} steps"
    passes = plan.seen / max(1, n_train(survey))
    yield (
        f"pixels    hybrid, convolutions around a small transformer, which hide patches: {plan.steps['pixels']:,} "
        f"steps, {plan.seen:,} pictures seen, each {passes:,.0f} times"
    )
    yield f"sample    {plan.n_samples} pictures, {PAINTER_STEPS} steps each, guidance {GUIDANCE:g}"
    if survey.judge is None:
        yield f"evaluate  {plan.steps['evaluate']:,} steps of the judge"
    else:
        file, name = survey.judge["weights"]["uri"], survey.judge["name"]
        yield f"evaluate  judged by {name} of {file}, which conditions nothing; {n_features(survey)} axes"


def time_lines(plan: Plan, speeds: Speeds, minutes: float) -> Iterator[str]:
    """The promise."""
    stages = ", ".join(f"{stage} {spoken_duration(seconds)}" for stage, seconds in plan.seconds.items())
    yield f"{spoken_duration(plan.total_s)} of {minutes:g} minutes on this machine while it is quiet: {stages}"
    if speeds.busy > _BUSY:
        yield (
            f"warning: other programs are at work: steps took {speeds.busy:.1f} times as long just now. The number of "
            "steps stays; if it remains so, so does the factor"
        )


def outlook_lines(survey: Survey, speeds: Speeds, plan: Plan) -> Iterator[str]:
    """What to expect, and what would change it."""
    if n_train(survey) < 500:
        yield "expect    few pictures: colors and outlines; much of what is drawn will resemble training pictures"
    elif plan.size <= 16 or plan.seen < _RECOGNIZABLE:
        yield "expect    right colors and outlines, soft; what is simple is recognized"
    else:
        yield "expect    things that are recognized, with smeared details"
    larger = min((size for size in speeds.pixels_s if size > plan.size), default=None)
    enough = None if larger is None else minutes_for(survey, speeds, larger)
    if plan.is_full:
        yield "more time at this size would not help: the painter sees every picture as often as it bears"
    if enough is not None:
        yield f"more time {larger} px from {enough} minutes on"
    elif larger is None and plan.size < max(SIZES):
        yield "more time sharper pictures; a larger size needs larger originals"
    elif not plan.is_full:
        yield "more time sharper pictures of this size"
    if survey.encoder is None and survey.channels == 3:
        yield "sight     an encoder that saw millions of pictures takes none of this time: docs/how-to/own-pictures.md"
    if speeds.device == "cpu":
        painted = spoken_duration(60 * gpu_minutes(plan, speeds))
        yield f"a GPU     the painter's steps in about {painted} (a rough guess)"
