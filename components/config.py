"""The base of every config. Needs pydantic alone, so that params are checked without importing torch."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Base of every config: immutable, no unknown keys, field docstrings become the schema's descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
