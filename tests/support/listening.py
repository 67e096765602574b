"""Which ports the processes below this one listen on, and who reaches them from outside."""

import contextlib
import ipaddress
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_LISTEN = "0A"


def listening() -> set[tuple[str, int]]:
    """(address, port) of every TCP socket that a descendant of this process, or itself, listens on."""
    inodes = {inode for pid in _family() for inode in _sockets(pid)}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN and fields[9] in inodes:
                address, port = fields[1].split(":")
                found.add((_address(address), int(port, 16)))
    return found


def is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def _address(text: str) -> str:
    """/proc/net holds words of four bytes in the machine's order."""
    raw = bytes.fromhex(text)
    words = [raw[i : i + 4] for i in range(0, len(raw), 4)]
    return str(ipaddress.ip_address(b"".join(w[::-1] if sys.byteorder == "little" else w for w in words)))


def _family() -> set[int]:
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    family = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def _sockets(pid: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(path.readlink())
                if target.startswith("socket:["):
                    yield target[8:-1]


class Outside:
    """A network of its own, joined to this machine by one cable: what another machine sees. Needs root."""

    HERE, THERE = "198.18.7.1", "198.18.7.2"

    def __enter__(self) -> "Outside":
        self.name = f"rcg{os.getpid()}"
        pair = f"v{os.getpid()}"
        for command in (
            f"netns add {self.name}",
            f"link add {pair}a type veth peer name {pair}b netns {self.name}",
            f"addr add {self.HERE}/30 dev {pair}a",
            f"link set {pair}a up",
            f"-n {self.name} addr add {self.THERE}/30 dev {pair}b",
            f"-n {self.name} link set {pair}b up",
        ):
            _ip(command)
        return self

    def __exit__(self, *_: object) -> None:
        _ip(f"netns delete {self.name}")

    def reaches(self, ports: set[int]) -> set[int]:
        """Those ports of this machine that answer there."""
        code = (
            "import socket, sys\n"
            "for port in map(int, sys.argv[2:]):\n"
            "    with socket.socket() as s:\n"
            "        s.settimeout(2)\n"
            "        if s.connect_ex((sys.argv[1], port)) == 0: print(port)\n"
        )
        ask = ["ip", "netns", "exec", self.name, sys.executable, "-I", "-c", code, self.HERE, *map(str, sorted(ports))]
        return set(map(int, subprocess.run(ask, capture_output=True, text=True, check=True).stdout.split()))

    def reaches_a_port_that_is_open(self) -> bool:
        """Whether the cable works at all."""
        with socket.create_server((self.HERE, 0)) as server:
            port: int = server.getsockname()[1]
            return self.reaches({port}) == {port}


def can_be_outside() -> bool:
    done = subprocess.run(["sh", "-c", "command -v ip && unshare -n true"], capture_output=True, check=False)
    return os.geteuid() == 0 and done.returncode == 0


def _ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True, capture_output=True)
