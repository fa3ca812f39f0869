"""The numbers of the users that a policy names."""

from __future__ import annotations

import pwd
from collections.abc import Iterable


def user_ids(names: Iterable[str]) -> dict[str, int]:
    """The number of each of `names` that is a user now. Raises nothing.

    Asks the name service, which may be a directory on the network: called when a policy is read, and by the
    engine now and then for users who come and go, not in each round.
    """
    found = {}
    for name in set(names):
        try:
            found[name] = pwd.getpwnam(name).pw_uid
        except (KeyError, OSError):
            continue
    return found
