"""One small object of a store that is read with its etag and replaced by compare-and-swap."""

import contextlib
from dataclasses import dataclass

from components.errors import ConflictError, MissingError
from components.store.base import Store


@dataclass(frozen=True)
class Cell:
    """The object at `key`. Its writers never write the same bytes twice: equal bytes mean one's own write."""

    store: Store
    key: str

    def read(self) -> tuple[bytes, str] | None:
        """The bytes and the etag that replace() wants; None for an absent object."""
        while (info := self.store.head(self.key)) is not None:
            # The etag is older than the bytes if somebody writes in between, and a swap with it fails as it should.
            with contextlib.suppress(MissingError):
                return self.store.get(self.key), info.etag
        return None

    def replace(self, data: bytes, etag: str | None) -> str:
        """Write, if the object is still the one with this etag (None: absent); returns the new etag.

        Raises: ConflictError, unless the bytes are there: the write had taken effect, and its answer was lost.
        """
        try:
            return self.store.put(self.key, data, if_absent=etag is None, if_match=etag)
        except ConflictError:
            found = self.read()
            if found is None or found[0] != data:
                raise
            return found[1]
