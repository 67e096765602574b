"""`rcg plan`: write dvc.yaml as params.yaml and the code want it."""

from pathlib import Path

from flows.pipeline.plan import FILE, check_plan, write_plan


def plan_command(*, check: bool) -> str:
    """Write dvc.yaml, or only check it; returns what to print. Raises: ConfigError when a check finds it stale."""
    root = Path.cwd()
    if check:
        check_plan(root)
        return f"{FILE} is up to date"
    changes = write_plan(root)
    return "\n".join([f"{FILE} is written anew; commit it", *changes] if changes else [f"{FILE} is up to date"])
