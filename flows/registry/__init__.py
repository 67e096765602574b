"""The model registry: versions, references to them, and aliases. With flows.tracking the only importer of mlflow."""

from flows.registry.aliases import CHAMPION, PREVIOUS, Aliases, Version
from flows.registry.peek import Registered, look
from flows.registry.references import resolve
from flows.registry.versions import CHALLENGER, bundle_uri, register

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "PREVIOUS",
    "Aliases",
    "Registered",
    "Version",
    "bundle_uri",
    "look",
    "register",
    "resolve",
]
