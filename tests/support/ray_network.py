"""Workers of Ray whose network is not there."""

import os
from dataclasses import dataclass
from typing import Any

from flows.executors.ray_local import ByFile, LocalTorchConfig


@dataclass
class OnNoNetwork(LocalTorchConfig):
    """Gloo looks for an interface that no machine has."""

    @property
    def backend_cls(self) -> type["_OnNoNetwork"]:
        return _OnNoNetwork


class _OnNoNetwork(ByFile):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(lambda: os.environ.update(GLOO_SOCKET_IFNAME="nosuch0"))
        super().on_start(worker_group, backend_config)
