"""SIGKILL of the daemon under load, at random instants."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from tests.faults.case import SETTINGS, Case, Scene, Seen
from tests.vm.guest import GuestError
from tests.vm.test_settings import BALANCING

KILLS = 10
LONG_KILLS, PARTS = 50, 10
"""Kills of a row that is long, and how many such rows: 500 on each kernel."""
LONGEST_LIFE = 8.0
"""Seconds from one start to the next kill, at most."""
EVERY = 5
"""Kills until it is looked whether pages come up again."""
BACK_WITHIN = 60
# systemd gives up after five starts in five minutes
_OFTEN = "RestartSec=100ms\n[Unit]\nStartLimitIntervalSec=0"


def _killed(kills: int, seed: str) -> Callable[[Scene], Seen]:
    def play(scene: Scene) -> Seen:
        guest, server, faults = scene.guest, scene.server, []
        chance = random.Random(f"{guest.kernel} {seed}")
        count = "systemctl show -P NRestarts tierd"
        done, recovered = 0, []
        server.drop_in(_OFTEN)
        before = int(guest.output(count))
        try:
            for number in range(kills):
                pid, whom = server.main_pid(), chance.choice(("main", "all"))
                guest.run(
                    f"sleep {chance.uniform(0, LONGEST_LIFE):.2f};"
                    f" systemctl kill --kill-whom={whom} --signal=KILL tierd"
                )
                back = f"systemctl is-active tierd && [ $(systemctl show -P MainPID tierd) != {pid} ]"
                guest.wait_for(back, timeout=BACK_WITHIN, interval=0.2)
                done += 1
                if server.read(BALANCING) != "2":
                    faults.append(f"after kill {done}, {BALANCING} is {server.read(BALANCING)}")
                if number % EVERY == EVERY - 1:
                    recovered.append(scene.comes_up())
        except GuestError as error:
            faults.append(f"not back after kill {done + 1}: {str(error).splitlines()[0]}")
        again = int(guest.output(count)) - before
        server.no_drop_in()
        if again != done:
            faults.append(f"{again} restarts after {done} kills")
        text = f"{done} kills, placing again after {max(recovered, default=0):.0f} s at most"
        return Seen(done, faults, text)

    return play


_CASE = Case(
    "under-load",
    "F6",
    f"SIGKILL of the daemon at {KILLS} random instants: memory that checks itself is whole",
    _killed(KILLS, "short"),
    restarts=None,
)
CASES = (
    _CASE,
    *(
        replace(
            _CASE,
            name=f"under-load-{part}",
            promise=f"the same at {LONG_KILLS}, part {part} of {PARTS}",
            play=_killed(LONG_KILLS, str(part)),
            long=True,
        )
        for part in range(1, PARTS + 1)
    ),
    SETTINGS,
)
