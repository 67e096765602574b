"""Make MLflow's account of the driver, which administers nothing: run by the hook that follows the server's start.

Creates user `rcg` where there is none, and takes an administrator's rights from one of an earlier installation. What an
account creates, experiments and the model, it may change; what others create it may read.
"""

import base64
import json
import os
import time
import urllib.error
import urllib.request

SERVER = "http://localhost:5000"
USER = "rcg"
PATIENCE_S = 240


def ask(method: str, path: str, body: dict[str, object] | None = None) -> dict[str, dict[str, object]]:
    password = os.environ["MLFLOW_AUTH_ADMIN_PASSWORD"]
    token = base64.b64encode(f"{os.environ['MLFLOW_AUTH_ADMIN_USERNAME']}:{password}".encode()).decode()
    request = urllib.request.Request(
        f"{SERVER}/api/2.0/mlflow/users/{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Basic {token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer) if answer.length else {}


def wait_for_the_server() -> None:
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            urllib.request.urlopen(f"{SERVER}/health", timeout=5).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(1)


def main() -> None:
    wait_for_the_server()
    try:
        user = ask("GET", f"get?username={USER}")["user"]
    except urllib.error.HTTPError as error:
        if error.code == 401:
            return  # the administrator's password is no longer the Secret's: the account is a person's to change
        if error.code != 404:
            raise
        ask("POST", "create", {"username": USER, "password": os.environ["RCG_DRIVER_PASSWORD"]})
        return
    if user["is_admin"]:
        ask("PATCH", "update-admin", {"username": USER, "is_admin": False})


if __name__ == "__main__":
    main()
