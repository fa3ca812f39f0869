"""From YAML to a Policy, with file:line:column for every error."""

from tierd.config.loader import DEFAULT_PATH, load, load_chosen, load_in_force

__all__ = ["DEFAULT_PATH", "load", "load_chosen", "load_in_force"]
