"""Cluster by the Kubernetes API. The only importer of kubernetes, which takes a second: import it when needed.

Verbs used: rayjobs get/list/create/delete, pods list, pods/log get, events list, leases get/create/update.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from components.errors import ConfigError, ConflictError
from flows.executors.kuberay.cluster import AccessError, Object, UnreachableError

_RAY = ("ray.io", "v1")
_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_TIMEOUT_S = (5, 30)
_LOG_TIMEOUT_S = (5, 300)
_LAST_BYTES = 20_000


class KubeApi:
    """The real one: the service account in a pod, else kubeconfig."""

    def __init__(self, namespace: str, context: str | None = None) -> None:
        self.namespace = namespace
        settings = _configuration(context)
        settings.retries = False  # who waits, and how long, is decided by the caller
        self.server = str(settings.host)
        api = client.ApiClient(settings)
        # Their types describe parsed models; what comes back here is plain JSON and streams.
        self._custom: Any = client.CustomObjectsApi(api)
        self._core: Any = client.CoreV1Api(api)
        self._leases: Any = client.CoordinationV1Api(api)
        self._rights: Any = client.AuthorizationV1Api(api)

    def create_job(self, manifest: Object) -> Object:
        with self._errors("create", "rayjobs"):
            created: Object = self._custom.create_namespaced_custom_object(
                *_RAY, self.namespace, "rayjobs", manifest, field_validation="Strict", _request_timeout=_TIMEOUT_S
            )
        return created

    def job(self, name: str) -> Object | None:
        with self._errors("get", "rayjobs"):
            try:
                found: Object = self._custom.get_namespaced_custom_object(
                    *_RAY, self.namespace, "rayjobs", name, _request_timeout=_TIMEOUT_S
                )
            except ApiException as error:
                if error.status == 404 and _reason(error):  # without one it is the whole API that is not there
                    return None
                raise
        return found

    def jobs(self, labels: dict[str, str]) -> list[Object]:
        with self._errors("list", "rayjobs"):
            found: Object = self._custom.list_namespaced_custom_object(
                *_RAY, self.namespace, "rayjobs", label_selector=_selector(labels), _request_timeout=_TIMEOUT_S
            )
        return list(found["items"])

    def delete_job(self, name: str, uid: str) -> None:
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        with self._errors("delete", "rayjobs"):
            try:
                self._custom.delete_namespaced_custom_object(
                    *_RAY, self.namespace, "rayjobs", name, body=body, _request_timeout=_TIMEOUT_S
                )
            except ApiException as error:
                if error.status not in (404, 409):  # gone, or another one by that name
                    raise

    def lease(self, name: str) -> Object | None:
        with self._errors("get", "leases"):
            try:
                response = self._leases.read_namespaced_lease(
                    name, self.namespace, _preload_content=False, _request_timeout=_TIMEOUT_S
                )
            except ApiException as error:
                if error.status == 404 and _reason(error):
                    return None
                raise
            found: Object = json.loads(response.data)
        return found

    def put_lease(self, name: str, lease: Object) -> Object:
        """Create it, or replace the one whose resourceVersion it has. Raises: ConflictError when another is there."""
        how: dict[str, Any] = {"_preload_content": False, "_request_timeout": _TIMEOUT_S}
        fresh = "resourceVersion" not in lease["metadata"]
        with self._errors("create" if fresh else "update", "leases"):
            if fresh:
                response = self._leases.create_namespaced_lease(self.namespace, lease, **how)
            else:
                response = self._leases.replace_namespaced_lease(name, self.namespace, lease, **how)
            found: Object = json.loads(response.data)
        return found

    def pods(self, labels: dict[str, str]) -> list[Object]:
        with self._errors("list", "pods"):
            response = self._core.list_namespaced_pod(
                self.namespace, label_selector=_selector(labels), _preload_content=False, _request_timeout=_TIMEOUT_S
            )
            return list(json.loads(response.data)["items"])

    def log(self, pod: str, container: str) -> Iterator[str]:
        with self._errors("get", "pods/log"):
            response = self._core.read_namespaced_pod_log(
                pod,
                self.namespace,
                container=container,
                follow=True,
                timestamps=True,
                _preload_content=False,
                _request_timeout=_LOG_TIMEOUT_S,
            )
            rest = b""
            for piece in response.stream(4096, decode_content=True):
                *lines, rest = (rest + piece).split(b"\n")
                yield from (line.decode(errors="replace") for line in lines)

    def last_lines(self, pod: str, container: str, n: int) -> list[str]:
        with self._errors("get", "pods/log"):
            response = self._core.read_namespaced_pod_log(
                pod,
                self.namespace,
                container=container,
                tail_lines=n,
                limit_bytes=_LAST_BYTES,
                _preload_content=False,
                _request_timeout=_TIMEOUT_S,
            )
            return str(response.data.decode(errors="replace")).splitlines()

    def warnings(self, name: str) -> list[str]:
        with self._errors("list", "events"):
            response = self._core.list_namespaced_event(
                self.namespace,
                field_selector=f"involvedObject.name={name},type=Warning",
                _preload_content=False,
                _request_timeout=_TIMEOUT_S,
            )
            events = json.loads(response.data)["items"]
        events.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
        return [event["message"] for event in events if event.get("message")]

    def may(self, verb: str, group: str, resource: str, part: str = "") -> bool:
        attributes = {
            "namespace": self.namespace,
            "verb": verb,
            "group": group,
            "resource": resource,
            "subresource": part,
        }
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
        with self._errors("create", "selfsubjectaccessreviews"):
            answer = self._rights.create_self_subject_access_review(
                body | {"spec": {"resourceAttributes": attributes}}, _preload_content=False, _request_timeout=_TIMEOUT_S
            )
            return bool(json.loads(answer.data)["status"]["allowed"])

    @contextlib.contextmanager
    def _errors(self, verb: str, resource: str) -> Iterator[None]:
        """The client's errors as ours, for a person who asked for a stage and not for an API call."""
        try:
            yield
        except urllib3.exceptions.HTTPError as error:
            raise UnreachableError(
                "the Kubernetes API server does not answer",
                got=f"{self.server}: {error}",
                fix="check the network and the kubeconfig (KUBECONFIG, RCG_KUBE_CONTEXT)",
            ) from error
        except ApiException as error:
            raise self._translated(error, verb, resource) from error

    def _translated(self, error: ApiException, verb: str, resource: str) -> Exception:
        status, message = error.status or 0, _message(error)
        where = f"namespace {self.namespace} of {self.server}"
        if status == 401:
            fix = "sign in to the cluster again, then run the same command"
            return AccessError("the Kubernetes API server does not accept the credentials", got=message, fix=fix)
        if status == 403 and f"cannot {verb} resource" in message:
            fix = f"let the account {verb} {resource} there: k8s/base/rbac.yaml has the Role"
            return AccessError(f"the account may not {verb} {resource} in {where}", got=message, fix=fix)
        if status == 409:
            return ConflictError(message)
        if status == 404 and not _reason(error):
            fix = "install the KubeRay operator, 1.6 or newer: docs/how-to/run-on-a-cluster.md"
            return ConfigError("the cluster has no RayJobs: the CRD of KubeRay is missing", got=self.server, fix=fix)
        if status == 404:
            fix = "create it (k8s/README.md), or set RCG_KUBE_NAMESPACE"
            return ConfigError(f"there is no namespace {self.namespace}", got=message, fix=fix)
        if status == 400 and "unknown field" in message:
            fix = "upgrade KubeRay to 1.6 or newer, CRDs included"
            return ConfigError("the cluster's RayJobs lack a field: KubeRay is too old", got=message, fix=fix)
        if status in (408, 429) or status >= 500:
            return UnreachableError("the Kubernetes API server is not ready", got=f"{status}: {message}")
        return ConfigError(f"the cluster refused to {verb} {resource}", got=message)


def _configuration(context: str | None) -> Any:
    """Raises: ConfigError for a kubeconfig that is absent, broken, or lacks the context."""
    settings = client.Configuration()
    try:
        if context is None and os.environ.get("KUBERNETES_SERVICE_HOST") and _TOKEN.is_file():
            config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
        else:
            config.load_kube_config(context=context, client_configuration=settings)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            "no access to a Kubernetes cluster",
            got=error,
            expected="a kubeconfig that kubectl works with",
            fix="set KUBECONFIG and, if it has several, RCG_KUBE_CONTEXT",
        ) from error
    return settings


def _selector(labels: dict[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in labels.items())


def _status(error: ApiException) -> Object:
    """The Status object in the answer; empty when it is something else, e.g. of a proxy."""
    with contextlib.suppress(ValueError, TypeError):
        body = json.loads(error.body or "")
        if isinstance(body, dict):
            return body
    return {}


def _reason(error: ApiException) -> str:
    """Why a thing was not found, if the answer is about a thing: for an unknown path it has no details."""
    return str((_status(error).get("details") or {}).get("name", ""))


def _message(error: ApiException) -> str:
    return str(_status(error).get("message") or error.body or error.reason or error.status)
