"""RayJobs as a driver makes them, and what the API server says of such a one; nothing is kept."""

import json
import uuid
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from flows.executors.kuberay.manifest import Order, build, read_template
from flows.settings import Settings
from tests.support import cluster_rig
from tests.support.cluster_jobs import JOBS
from tests.support.made_runs import a_spec
from tests.support.manifests import Object


def made(**settings: Any) -> Object:
    """What a driver creates."""
    values = {"executor": "kuberay", "store": "s3://rcg/store", "image": cluster_rig.THIN, "image_by_tag": True}
    order = Order(a_spec("rdm", params={"test": uuid.uuid4().hex}), "s3://rcg/store", 1)
    return build(read_template(None), order, Settings.model_validate(values | settings))


class Server:
    """The API server, asked by the administrator, who may do everything."""

    def __init__(self) -> None:
        settings = client.Configuration()
        config.load_kube_config(str(cluster_rig.ADMIN), client_configuration=settings)
        self.api = client.CustomObjectsApi(client.ApiClient(settings))

    def create(self, job: Object, namespace: str = JOBS) -> str:
        """Empty, or why it was refused."""
        try:
            self.api.create_namespaced_custom_object(
                "ray.io", "v1", namespace, "rayjobs", job, dry_run="All", field_validation="Strict"
            )
        except ApiException as error:
            return str(json.loads(error.body)["message"])
        return ""
