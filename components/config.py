"""The base of every config. Needs pydantic alone, so that params are checked without importing torch."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Base of every config: immutable, no unknown keys, finite numbers.

    Pydantic would read the fields' docstrings from the sources each time that a command starts; docs/generate.py, which
    alone shows them, turns `use_attribute_docstrings` on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
