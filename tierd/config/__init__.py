"""From YAML to a Policy, with file:line:column for every error."""
