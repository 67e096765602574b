"""The cluster of the tests: a real one-node Kubernetes with KubeRay, our images and k8s/overlays/local in it.

The scripts that start it are found through RCG_RIGS. It stays up: the next session takes seconds. By hand:
`python -m tests.support.cluster_rig up|image|down`.
"""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tests.support.manifests import K8S
from tests.support.s3_rig import S3Server

ROOT = Path(__file__).parents[2]
RIG = (ROOT / os.environ.get("RCG_RIGS", "../shared") / "cluster").resolve()
STATE = Path(os.environ.get("RCG_CLUSTER_STATE", "/var/lib/rcg-cluster"))
CACHE = Path(os.environ.get("RCG_CLUSTER_CACHE", "/var/cache/rcg-cluster"))
ADMIN = STATE / "admin.kubeconfig"
HOST = os.environ.get("HOST_IP", "10.244.0.1")
"""This machine, as pods see it and as itself."""
BASE_IMAGE = os.environ.get("BASE_IMAGE", "docker.io/library/python:3.11-slim-bookworm")
THIN, FULL = "localhost/rcg:thin", "localhost/rcg:cpu"
POSTGRES = "localhost/rcg-postgres:local"
POSTGRES_DATA = Path("/var/lib/rcg-volumes/postgres")
MLFLOW_URI = "http://10.96.0.50:5000"
MLFLOW_USER, MLFLOW_PASSWORD = "rcg", "local-password"
MLFLOW_ADMIN = ("admin", "local-admin-password")
_UID = 1000


def missing() -> str | None:
    """What this machine lacks for a cluster; None when it has all."""
    if not (RIG / "up").is_file():
        return f"no cluster rig at {RIG}: set RCG_RIGS"
    if os.geteuid() != 0:
        return "the cluster rig needs root"
    if not (CACHE / "bin/kubelet").is_file():
        return f"the cluster's binaries are not built: run {RIG}/build"
    return None


def environment() -> Path:
    """The virtual environment of the pods: a second one, as a pod's own /tmp or home would hide one below them.

    A copy of this process's, made once for each requirements.lock, of hard links where the file system is the same. It
    has the bytecode too: pods see it read-only and would compile at every start.
    """
    lock = (ROOT / "requirements.lock").read_bytes() + sys.version.encode()
    folder = CACHE / "rcg-env" / hashlib.sha256(lock).hexdigest()[:12]
    stamp = folder / ".pods"
    if not stamp.exists():
        if sys.prefix == sys.base_prefix:
            raise RuntimeError("run this in the virtual environment that `make setup` makes")
        shutil.rmtree(folder.parent, ignore_errors=True)
        folder.parent.mkdir(parents=True)
        same = Path(sys.prefix).stat().st_dev == folder.parent.stat().st_dev
        _run(["cp", "-a", *(["--link"] if same else []), sys.prefix, str(folder)])
        for script in (folder / "bin").iterdir():
            if script.is_file() and not script.is_symlink():
                _move_script(script, sys.prefix.encode(), str(folder).encode())
        stamp.touch()
    return folder


def _move_script(path: Path, old: bytes, new: bytes) -> None:
    """Let a script name another folder. Its file is replaced: the old one may have other links."""
    data, mode = path.read_bytes(), path.stat().st_mode
    if old in data and b"\0" not in data:
        path.unlink()
        path.write_bytes(data.replace(old, new))
        path.chmod(mode)


def host_mounts() -> list[str]:
    """The environment of the pods and its interpreter, which every container sees at the same path."""
    return [str(environment()), *([] if sys.base_prefix == "/usr" else [str(Path(sys.base_prefix).resolve())])]


def up() -> None:
    """A healthy cluster with the environment mounted; one that is there already is kept."""
    spec = STATE / "oci-spec.json"
    mounted = {mount["source"] for mount in json.loads(spec.read_text())["mounts"]} if spec.exists() else set()
    fresh = [] if mounted >= set(host_mounts()) else ["--fresh"]
    _run([str(RIG / "up"), *fresh], RCG_CLUSTER_MOUNTS=" ".join(host_mounts()))


def down() -> None:
    _run([str(RIG / "down")])


def images() -> None:
    """Build and import what overlays/local names, each when its sources changed."""
    volumes = [part for path in host_mounts() for part in ("--volume", f"{path}:{path}:ro")]
    base = ["--build-arg", f"BASE={BASE_IMAGE}"]
    thin = ["--file", str(K8S / "thin.Dockerfile"), "--build-arg", f"VENV={environment()}", *volumes, *base]
    _image(THIN, ROOT, thin, [K8S / "thin.Dockerfile", *_copied()])
    for name in ("postgres", "mlflow"):
        _image(f"localhost/rcg-{name}:local", K8S / name, base, (K8S / name).iterdir())


def full_image() -> None:
    """Build and import the image that production uses, CPU flavor: minutes and some 10 GB."""
    options = ["--file", str(K8S / "Dockerfile"), "--build-arg", "FLAVOR=cpu", "--build-arg", f"BASE={BASE_IMAGE}"]
    _image(FULL, ROOT, options, [ROOT / "requirements.lock", K8S / "Dockerfile", *_copied()])


def _copied() -> list[Path]:
    """What both images copy."""
    return [K8S / "base/rayjob.yaml", K8S / "ray", *ROOT.glob("flows/**/*.py"), *ROOT.glob("components/**/*.py")]


def _image(name: str, context: Path, options: list[str], sources: Iterable[Path]) -> None:
    digest = hashlib.sha256(json.dumps(options).encode())
    for path in sorted(path for path in sources if path.is_file()):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    stamp = CACHE / "rcg-images" / name.replace("/", "-")
    if stamp.exists() and stamp.read_text() == digest.hexdigest() and name in _images_of_the_node():
        return
    _run([str(RIG / "image"), name, str(context), *options])
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(digest.hexdigest())


def tag(image: str, name: str) -> None:
    """Another name for an image of the node."""
    _ctr("tag", "--force", image, name)


def _images_of_the_node() -> set[str]:
    return set(_ctr("ls", "-q").split())


def _ctr(*arguments: str) -> str:
    socket = Path(os.environ.get("RCG_CLUSTER_RUN", "/run/rcg-cluster")) / "containerd.sock"
    return _run(["ctr", "--address", str(socket), "-n", "k8s.io", "images", *arguments])


def apply() -> None:
    """k8s/overlays/local, up to a MLflow that answers. A new cluster starts with an empty database."""
    if not kubectl("get", "namespace", "rcg-system", "--ignore-not-found"):
        subprocess.run(["rm", "-rf", str(POSTGRES_DATA)], check=True)
    POSTGRES_DATA.mkdir(parents=True, exist_ok=True)
    POSTGRES_DATA.chmod(0o700)
    os.chown(POSTGRES_DATA, _UID, _UID)
    kubectl("apply", "--server-side", "-k", str(K8S / "overlays/local"))
    await_system()


def await_system() -> None:
    """Until PostgreSQL and MLflow are Ready and the node routes to them, which it learns a moment later."""
    for workload in ("statefulset/rcg-postgres", "deployment/rcg-mlflow"):
        kubectl("-n", "rcg-system", "rollout", "status", workload, "--timeout=300s")
    wait_until(lambda: answers(MLFLOW_URI.removeprefix("http://")), "MLflow at its address")


def answers(address: str) -> bool:
    """Does anything listen at ip:port?"""
    host, port = address.split(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=2):
        return True
    return False


def kubectl(*arguments: str, stdin: str | None = None) -> str:
    """Output of kubectl as the cluster's administrator."""
    return _run([str(CACHE / "bin/kubectl"), "--kubeconfig", str(ADMIN), *arguments], stdin=stdin)


def resource(kind: str, name: str, namespace: str) -> dict[str, Any]:
    """One object, as the API server has it."""
    found: dict[str, Any] = json.loads(kubectl("-n", namespace, "get", kind, name, "-o", "json"))
    return found


def wait_until(condition: Any, what: str, timeout_s: float = 60) -> Any:
    """The first result of `condition()` that is true. Raises: TimeoutError."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.5)
    raise TimeoutError(f"not within {timeout_s:g} s: {what}")


def driver_kubeconfig(path: Path) -> Path:
    """Write a kubeconfig that signs in as the driver's service account."""
    return kubeconfig_of("rcg-driver", "rcg-system", path)


def kubeconfig_of(account: str, namespace: str, path: Path) -> Path:
    """Write a kubeconfig that signs in as a service account, for eight hours, and nothing more."""
    token = kubectl("-n", namespace, "create", "token", account, "--duration=8h").strip()
    content = yaml.safe_load(ADMIN.read_text())
    name = content["contexts"][0]["name"]
    content["users"] = [{"name": account, "user": {"token": token}}]
    content["contexts"] = [{"name": name, "context": {"cluster": content["clusters"][0]["name"], "user": account}}]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(content))
    return path


def client_environment(kubeconfig: Path) -> dict[str, str]:
    """What a driver on this machine needs beside settings: who it is to the cluster, the bucket and MLflow."""
    lines = (K8S / "overlays/local/bucket.env").read_text().splitlines()
    mlflow = {"MLFLOW_TRACKING_USERNAME": MLFLOW_USER, "MLFLOW_TRACKING_PASSWORD": MLFLOW_PASSWORD}
    return {"KUBECONFIG": str(kubeconfig), **mlflow, **dict(line.split("=", 1) for line in lines)}


def s3_server() -> S3Server:
    """The object store of overlays/local, at an address that pods and this machine share; not started yet."""
    address = f"{HOST}:9000"
    return S3Server(Path("/var/lib/rcg-s3") / address, address)


def _run(command: list[str], *, stdin: str | None = None, **environment: str) -> str:
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        )
    return done.stdout


def main(command: str) -> None:
    actions = {"up": install_by_hand, "image": full_image, "down": remove}
    if command not in actions:
        sys.exit(f"what is `{command}`? one of {', '.join(actions)}")
    actions[command]()


def install(kubeconfig: Path) -> dict[str, str]:
    """Everything that the tests have, kept up; returns the environment of a driver, who signs in by `kubeconfig`."""
    up()
    s3_server().start()
    images()
    apply()
    profile = {"RCG_PROFILE": str(K8S / "overlays/local/profile.yaml")}
    return profile | client_environment(driver_kubeconfig(kubeconfig))


def install_by_hand() -> None:
    """Prints what to export."""
    values = install(ROOT / ".rcg/driver.kubeconfig")
    sys.stdout.write("".join(f"export {name}={value}\n" for name, value in values.items()))


def remove() -> None:
    s3_server().stop()
    down()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
