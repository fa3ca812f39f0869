"""Redis and PostgreSQL with their own clients. Nobody knows their ideal placement, so what they say is how
many requests were answered; under emulation that is worth little, and the counters beside it are worth more.

The server runs as load.service, like every other workload, so that one policy fits all.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Protocol

from tests.vm import image
from tests.vm.guest import Guest

RECIPE = replace(
    image.RECIPE,
    size=6144,
    packages=(*image.RECIPE.packages, "redis-server", "redis-tools", "postgresql-17"),
    masked=(
        *image.RECIPE.masked,
        "redis-server.service",
        "postgresql.service",
        "postgresql@17-main.service",
    ),
)
"""A second, larger image, built when one of these workloads is asked for the first time."""

_CLIENT_OUTPUT = "/run/client.txt"


class Server(Protocol):
    """What workloads.py needs of a server."""

    def start(self) -> None:
        """Start the server, fill it, and start its client."""

    def stop(self) -> list[tuple[float, float]]:
        """End both; returns (seconds on the guest's monotonic clock, requests a second) over time."""


class Redis:
    """1.5 million values of 1000 bytes. Keys are stored in blocks of 64 (64 KiB) in a scattered order, and
    the client asks for the first sixth of the keys only, all alike: a hot set of 250 MB in clusters."""

    KEYS = 1_500_032
    HOT = 250_000
    BLOCK = 64
    CHUNK = 1024
    """Blocks stored by one script."""
    _FILL = """local blocks, first, last = {blocks}, {first}, {last}
local value = string.rep('x', 1000)
for n = first, last do
  local block = (n * 7919) % blocks
  for key = block * {block}, block * {block} + {block} - 1 do
    redis.call('set', string.format('key:%012d', key), value)
  end
end"""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def start(self) -> None:
        options = "--save '' --appendonly no --dir /run --port 6379 --bind 127.0.0.1 --daemonize no"
        self._guest.run(f"systemd-run --quiet --unit=load /usr/bin/redis-server {options}")
        self._guest.wait_for("redis-cli ping | grep -q PONG", timeout=60)
        blocks = self.KEYS // self.BLOCK
        for first in range(0, blocks, self.CHUNK):
            last = min(first + self.CHUNK, blocks) - 1
            script = self._FILL.format(blocks=blocks, first=first, last=last, block=self.BLOCK)
            self._guest.run(["redis-cli", "eval", script, "0"], timeout=300)
        client = f"redis-benchmark -t get -r {self.HOT} -n 20000 -c 4 -P 8 --csv"
        _start_client(self._guest, f"{client} | grep GET | cut -d, -f2 | tr -d '\"'")

    def stop(self) -> list[tuple[float, float]]:
        return _stop(self._guest)


class PostgreSQL:
    """pgbench's tables at scale 60 (6 million accounts, 0.8 GB) in 1.2 GB of shared buffers; accounts are
    looked up with Zipf 1.1, scattered over the table."""

    SCALE = 60
    _BIN = "/usr/lib/postgresql/17/bin"
    _DATA = "/var/lib/postgresql/bench"
    _SCRIPT = (
        "\\set n random_zipfian(1, 100000 * :scale, 1.1)\n"
        "\\set aid 1 + permute(:n - 1, 100000 * :scale)\n"
        "SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n"
    )

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def start(self) -> None:
        fresh = self._guest.run(f"test -d {self._DATA}", check=False).returncode != 0
        if fresh:
            initialise = f"{self._BIN}/initdb -D {self._DATA} -U postgres -A trust --no-sync"
            self._guest.run(f"runuser -u postgres -- {initialise}", timeout=300)
            self._guest.write("/usr/local/lib/lookup.sql", self._SCRIPT)
        options = "-c shared_buffers=1200MB -c fsync=off -c autovacuum=off -c max_wal_size=4GB -c jit=off"
        options += " -c unix_socket_directories=/run/postgresql"
        self._guest.run(
            "systemd-run --quiet --unit=load --property=User=postgres "
            f"--property=RuntimeDirectory=postgresql {self._BIN}/postgres -D {self._DATA} {options}"
        )
        self._guest.wait_for(f"{self._BIN}/pg_isready -h /run/postgresql", timeout=120)
        connect = "-h /run/postgresql -U postgres"
        if fresh:
            fill = f"{self._BIN}/pgbench -i -I dtGvp -s {self.SCALE} -q {connect} postgres"
            self._guest.run(fill, timeout=1800)
        warm = "CREATE EXTENSION IF NOT EXISTS pg_prewarm; "
        warm += "SELECT pg_prewarm('pgbench_accounts'), pg_prewarm('pgbench_accounts_pkey')"
        self._guest.run(f"{self._BIN}/psql {connect} -q -c {shlex.quote(warm)} postgres", timeout=600)
        client = f"{self._BIN}/pgbench {connect} -n -s {self.SCALE} -f /usr/local/lib/lookup.sql -c 2 -T 5"
        _start_client(self._guest, f"{client} postgres | sed -n 's/^tps = \\([0-9.]*\\).*/\\1/p'")

    def stop(self) -> list[tuple[float, float]]:
        return _stop(self._guest)


def _start_client(guest: Guest, command: str) -> None:
    """Run the client again and again; each run prints the requests a second that it saw."""
    loop = f'while :; do rate=$({command}); read -r up _ < /proc/uptime; echo "$up $rate"; done'
    guest.run(
        f"rm -f {_CLIENT_OUTPUT}; systemd-run --quiet --expand-environment=no --unit=client "
        f"--property=StandardOutput=file:{_CLIENT_OUTPUT} /bin/bash -c {shlex.quote(loop)}"
    )
    guest.wait_for(f"[ -s {_CLIENT_OUTPUT} ]", timeout=120)


def _stop(guest: Guest) -> list[tuple[float, float]]:
    units = "client.service load.service"
    guest.run(f"systemctl stop {units}; systemctl reset-failed {units} 2>/dev/null || true", timeout=120)
    lines = (line.split() for line in guest.output(f"cat {_CLIENT_OUTPUT}").splitlines())
    return [(float(words[0]), float(words[1])) for words in lines if len(words) == 2]
