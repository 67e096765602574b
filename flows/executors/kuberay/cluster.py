"""What a driver needs of Kubernetes: RayJobs, pods, logs, events. Objects are plain dicts, as the server sends them."""

from collections.abc import Iterator
from typing import Any, Protocol

from components.errors import ConfigError, RetryableError

Object = dict[str, Any]


class UnreachableError(RetryableError):
    """The API server did not answer, or was too busy to."""


class AccessError(ConfigError):
    """The API server knows us not, or does not let us."""


class Cluster(Protocol):
    """One namespace. Every method raises UnreachableError and AccessError."""

    @property
    def namespace(self) -> str: ...

    @property
    def server(self) -> str:
        """Address of the API server."""
        ...

    def may(self, verb: str, group: str, resource: str, part: str = "") -> bool:
        """Is the account allowed to?"""
        ...

    def create_job(self, manifest: Object) -> Object:
        """Raises: ConflictError when the name is taken; ConfigError when it is refused."""
        ...

    def job(self, name: str) -> Object | None: ...
    def jobs(self, labels: dict[str, str]) -> list[Object]: ...

    def delete_job(self, name: str, uid: str) -> None:
        """Delete this very job with its pods; absent is fine."""
        ...

    def pods(self, labels: dict[str, str]) -> list[Object]: ...

    def log(self, pod: str, container: str) -> Iterator[str]:
        """Lines as they come, each with its RFC 3339 time, until the container ends or the connection breaks."""
        ...

    def last_lines(self, pod: str, container: str, n: int) -> list[str]:
        """What a container, or the one that ended before it, said last."""
        ...

    def warnings(self, name: str) -> list[str]:
        """Messages of warning events about an object, oldest first."""
        ...


def missing_rights(cluster: Cluster) -> list[str]:
    """What the account of a driver needs and has not, e.g. `create rayjobs.ray.io`."""
    needed = [(verb, "ray.io", "rayjobs", "") for verb in ("get", "list", "create", "delete")]
    needed += [("list", "", "pods", ""), ("get", "", "pods", "log"), ("list", "", "events", "")]
    names = {right: f"{right[0]} {'/'.join(filter(None, right[2:]))}" for right in needed}
    return [name for right, name in names.items() if not cluster.may(*right)]
