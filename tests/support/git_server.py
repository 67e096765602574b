"""A git server for tests: a bare repository behind a real sshd that knows one key."""

import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import cluster_rig

_SSHD = Path("/usr/sbin/sshd")
_PORT = 2222


def missing() -> str | None:
    """What this machine lacks for it; None when it has all."""
    return None if _SSHD.is_file() else "no sshd: apt-get install openssh-server"


@dataclass
class GitServer:
    """One repository, `pictures.git`, at an address that pods and this machine share."""

    folder: Path
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    @property
    def repository(self) -> Path:
        return self.folder / "pictures.git"

    @property
    def url(self) -> str:
        return f"ssh://root@{cluster_rig.HOST}:{_PORT}{self.repository}"

    @property
    def key(self) -> Path:
        return self.folder / "client"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def start(self) -> None:
        """Keys, an empty repository, the server. Its key may run git and nothing else."""
        self.folder.mkdir(parents=True)
        for name in ("host", "client"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.folder / name))
        host = (self.folder / "host.pub").read_text()
        self.known_hosts.write_text(f"[{cluster_rig.HOST}]:{_PORT} {host}")
        client = (self.folder / "client.pub").read_text()
        allowed = self.folder / "authorized_keys"
        allowed.write_text(f'restrict,command="git-shell -c \\"$SSH_ORIGINAL_COMMAND\\"" {client}')
        _run("git", "init", "--quiet", "--bare", "--initial-branch=main", str(self.repository))
        Path("/run/sshd").mkdir(exist_ok=True)
        options = {
            "Port": _PORT,
            "ListenAddress": cluster_rig.HOST,
            "HostKey": self.folder / "host",
            "PidFile": "none",
            "AuthorizedKeysFile": allowed,
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
        }
        flags = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        with (self.folder / "sshd.log").open("wb") as log:
            self._process = subprocess.Popen([str(_SSHD), "-D", "-e", "-f", os.devnull, *flags], stderr=log)
        while not cluster_rig.answers(f"{cluster_rig.HOST}:{_PORT}"):
            if self._process.poll() is not None:
                raise RuntimeError((self.folder / "sshd.log").read_text())
            time.sleep(0.1)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def git(self, *arguments: str) -> str:
        """Output of git in the repository itself."""
        return _run("git", "-C", str(self.repository), *arguments).strip()


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
