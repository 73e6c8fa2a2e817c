"""GitLab Runner: options that belong together."""

from __future__ import annotations

from collections.abc import Iterator

from .. import gitlab_runner
from .model import Environment, Fault

GROUP = "gitlab_runner"


def faults(environment: Environment) -> Iterator[Fault]:
    if not environment.members(GROUP):
        return
    prefix = gitlab_runner.PREFIX
    names = {name for role in environment.roles if role.name == GROUP for name in role.options}
    values = {name.removeprefix(prefix): environment.group_value(GROUP, name) for name in names}
    known = {name: value for name, value in values.items() if value is not None}
    for name, text in (*gitlab_runner.network_faults(known), *gitlab_runner.combination_faults(known)):
        problem, _, remedy = text.partition(". ")
        yield Fault(environment.group_value_origin(GROUP, prefix + name), f"{prefix}{name}: {problem}", remedy)
