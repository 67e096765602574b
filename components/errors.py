"""The one exception tree. A message says what went wrong, what was got, what was expected and how to fix it.

RcgError
├── ConfigError          exit 2: params, settings, command line; nothing has started
├── ArtifactError        exit 3: data or artifacts are missing, damaged or unfit
│   ├── DataError        the images themselves
│   ├── WeightsError     a weights file: absent, wrong sha256, wrong shapes, unsafe
│   ├── MissingError     an object or artifact that should be in the store is not
│   └── TamperedError    bytes that do not match their recorded digest
├── ShapeError           exit 3: a tensor of the wrong shape or dtype reached a public function
├── DivergedError        exit 3: a loss that is not finite
└── RetryableError       exit 75: the same command may succeed later
    ├── StoreError       the store did not answer
    │   └── StoreRefusedError  exit 3: it is full, read-only or not permitted; somebody must act first
    ├── ConflictError    a conditional write lost: somebody else was first
    └── SupersededError  another attempt holds the lease; this writer must stop
"""

import errno
from typing import ClassVar, Literal

from components.printable import redacted

SOMEBODY_MUST_ACT = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
FailureClass = Literal["config", "data", "code", "transient"]


class RcgError(Exception):
    """An error meant for a person: one sentence, then the facts that mend it."""

    exit_code: ClassVar[int] = 3
    failure_class: ClassVar[FailureClass] = "code"

    def __init__(self, what: str, *, got: object = None, expected: object = None, fix: str | None = None) -> None:
        self.what, self.got, self.expected = redacted(what), _told(got), _told(expected)
        self.fix = None if fix is None else redacted(fix)
        facts = {"got": self.got, "expected": self.expected, "fix": self.fix or None}
        lines = [f"  {name + ':':<9} {redacted(str(value))}" for name, value in facts.items() if value is not None]
        super().__init__("\n".join([self.what, *(line.replace("\n", "\n            ") for line in lines)]))


def _told(fact: object) -> object:
    """Without passwords; exceptions as text."""
    return redacted(str(fact)) if isinstance(fact, str | Exception) else fact


class ConfigError(RcgError):
    """Params, settings or the command line are wrong; raised before anything starts."""

    exit_code = 2
    failure_class: ClassVar[FailureClass] = "config"


class ArtifactError(RcgError):
    """Data or an artifact is missing, damaged or unfit for its use."""

    failure_class: ClassVar[FailureClass] = "data"


class DataError(ArtifactError):
    """The images are missing, unreadable or have changed."""


class WeightsError(ArtifactError):
    """A weights file is absent, has the wrong digest, shapes or keys, or is not safe to load."""


class MissingError(ArtifactError):
    """An object or artifact that should be in the store is not there."""


class TamperedError(ArtifactError):
    """Bytes do not match the digest that was recorded for them."""


class ShapeError(RcgError):
    """A tensor of the wrong shape or dtype reached a public function."""


class DivergedError(RcgError):
    """A loss stopped being finite."""


class RetryableError(RcgError):
    """The same command may succeed later."""

    exit_code = 75
    failure_class: ClassVar[FailureClass] = "transient"


class StoreError(RetryableError):
    """The store did not answer."""


class StoreRefusedError(StoreError):
    """The store, or the disk for temporary files, is full, read-only or not permitted: waiting does not mend it."""

    exit_code = 3
    failure_class: ClassVar[FailureClass] = "data"


def disk_error(error: OSError) -> StoreError:
    """What a person is told of a file that cannot be read or written, wherever it lies."""
    place = f"{error.filename}: " if error.filename else ""
    got = f"{place}{error.strerror or error}"
    if error.errno in SOMEBODY_MUST_ACT:
        return StoreRefusedError("a file cannot be written", got=got, fix="make room or allow it, then run it again")
    return StoreError("a file cannot be read or written", got=got, fix="run the same command again; look at the disk")


class ConflictError(RetryableError):
    """A conditional write lost: the object exists already, or changed since it was read."""


class SupersededError(RetryableError):
    """Another attempt holds the lease; this writer must stop."""
