"""Reads a project's `.gitlab-ci.yml` as GitLab does, as far as this simulation runs it.

Includes of the same project with inputs and rules, extends, anchors, !reference, default, variables and workflow are
resolved in GitLab's order. A keyword that is not implemented is refused with file and key, never ignored; `cache` is
the exception, since GitLab too gives no guarantee that a job finds one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any

from lab.gitlab.documents import Document, ReadFile, dereferenced, extended, include, only, refuse
from lab.gitlab.expressions import Condition, ExpressionError, Variables, expand, matches_path, parse
from lab.gitlab.store import Artifact

ENTRY = ".gitlab-ci.yml"
STAGES = ("build", "test", "deploy")
"""GitLab's stages where a file has none."""
DEFAULTS = ("image", "tags", "before_script", "after_script", "artifacts", "cache", "interruptible", "retry", "timeout")
"""Keywords that jobs take from `default`."""
WHENS = ("on_success", "on_failure", "always", "manual", "never")
RETRY_REASONS = (
    "always",
    "unknown_failure",
    "script_failure",
    "runner_system_failure",
    "stuck_or_timeout_failure",
    "job_execution_timeout",
)
TIMEOUT_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Rule:
    condition: Condition | None = None
    changes: tuple[str, ...] = ()
    when: str | None = None
    allow_failure: bool | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    def applies(self, variables: Variables, changed: AbstractSet[str] | None) -> bool:
        """`changed` is None where GitLab has no base to compare with (tags, schedules, new branches)."""
        if self.condition is not None and not self.condition(variables):
            return False
        if not self.changes or changed is None:
            return True
        patterns = [expand(pattern, variables) for pattern in self.changes]
        return any(matches_path(pattern, path) for pattern in patterns for path in changed)


@dataclass(frozen=True, slots=True)
class Need:
    job: str
    artifacts: bool = True
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Environment:
    name: str
    action: str = "start"
    url: str = ""
    on_stop: str = ""
    auto_stop_in: str = ""


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A job as the files declare it."""

    name: str
    file: str
    stage: str
    script: tuple[str, ...]
    after_script: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[Rule, ...] | None = None
    needs: tuple[Need, ...] | None = None
    dependencies: tuple[str, ...] | None = None
    artifacts: tuple[Artifact, ...] = ()
    tags: tuple[str, ...] = ()
    image: str = ""
    when: str = "on_success"
    allow_failure: bool | None = None
    timeout_seconds: int = TIMEOUT_SECONDS
    resource_group: str = ""
    environment: Environment | None = None
    interruptible: bool = False
    retry_max: int = 0
    retry_when: tuple[str, ...] = ("always",)


@dataclass(frozen=True, slots=True)
class Pipeline:
    stages: tuple[str, ...]
    jobs: Mapping[str, JobSpec]
    variables: Mapping[str, str]
    workflow: tuple[Rule, ...] | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """A job of one pipeline: its rules are evaluated, `variables` are those of the files, not yet expanded."""

    spec: JobSpec
    when: str
    allow_failure: bool
    variables: Mapping[str, str]


# Keywords


def _texts(file: str, key: str, node: Any) -> tuple[str, ...]:
    """A text or a list of them."""
    found = [] if node is None else [node] if isinstance(node, str) else node
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        refuse(file, key, f"is {node!r}, not a list of texts")
    return tuple(found)


def _one_of[T](file: str, key: str, value: T, known: Iterable[T]) -> T:
    known = list(known)
    if value not in known:
        refuse(file, key, f"is {value!r}", f"Use one of {', '.join(map(str, known))}")
    return value


def _flag(file: str, key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        refuse(file, key, f"is {value!r}", "Use true or false")
    return value


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(r"(\d+)\s*(s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|weeks?)\b\s*(?:and\b)?\s*")


def seconds_of(text: str) -> int:
    """`1h 30m`, `8 hours`. Raises ValueError."""
    parts = list(_DURATION.finditer(text))
    if not parts or "".join(part[0] for part in parts) != text:
        raise ValueError(text)
    return sum(int(part[1]) * _UNITS[part[2][0]] for part in parts)


def _seconds(file: str, key: str, value: Any) -> int:
    try:
        return value if isinstance(value, int) and not isinstance(value, bool) else seconds_of(str(value))
    except ValueError:
        refuse(file, key, f"is {value!r}, not a duration", "Write it like 1h 30m")


def _variables(file: str, key: str, node: Any, described: bool = False) -> dict[str, str]:
    node = node or {}
    only(file, key, node, set(node) if isinstance(node, dict) else set())
    values = {}
    for name, value in node.items():
        if described and isinstance(value, dict):
            only(file, f"{key}.{name}", value, {"value", "description"})
            value = value.get("value", "")
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            refuse(file, f"{key}.{name}", f"is {value!r}, not a text or number", "Put it in quotes")
        values[str(name)] = str(value)
    return values


def _rules(file: str, key: str, node: Any, known: AbstractSet[str]) -> tuple[Rule, ...] | None:
    if node is None:
        return None
    if not isinstance(node, list):
        refuse(file, key, "is not a list")
    rules = []
    for index, entry in enumerate(node):
        entry_key = f"{key}[{index}]"
        only(file, entry_key, entry, known)
        changes = entry.get("changes")
        if isinstance(changes, dict):
            only(file, f"{entry_key}.changes", changes, {"paths"})
            changes = changes.get("paths")
        when, allow_failure = entry.get("when"), entry.get("allow_failure")
        try:
            rule = Rule(
                parse(str(entry["if"])) if "if" in entry else None,
                _texts(file, f"{entry_key}.changes", changes),
                None if when is None else _one_of(file, f"{entry_key}.when", when, WHENS),
                None if allow_failure is None else _flag(file, f"{entry_key}.allow_failure", allow_failure),
                _variables(file, f"{entry_key}.variables", entry.get("variables")),
            )
            for pattern in rule.changes:
                matches_path(pattern, "")
        except ExpressionError as error:
            refuse(file, entry_key, str(error))
        rules.append(rule)
    return tuple(rules)


def _needs(file: str, key: str, node: Any) -> tuple[Need, ...]:
    if not isinstance(node, list):
        refuse(file, key, "is not a list")
    needs = []
    for index, entry in enumerate(node):
        entry_key = f"{key}[{index}]"
        entry = {"job": entry} if isinstance(entry, str) else entry
        only(file, entry_key, entry, {"job", "artifacts", "optional"})
        flags = [
            _flag(file, f"{entry_key}.{name}", entry.get(name, name == "artifacts"))
            for name in ("artifacts", "optional")
        ]
        needs.append(Need(str(entry.get("job")), *flags))
    return tuple(needs)


def _artifacts(file: str, key: str, node: Any) -> tuple[Artifact, ...]:
    if node is None:
        return ()
    only(file, key, node, {"name", "paths", "when", "expire_in", "reports"})
    if "expire_in" in node:
        _seconds(file, f"{key}.expire_in", node["expire_in"])
    reports = node.get("reports") or {}
    only(file, f"{key}.reports", reports, {"junit"})
    return (
        Artifact(
            _texts(file, f"{key}.paths", node.get("paths")),
            _one_of(file, f"{key}.when", node.get("when", "on_success"), ("on_success", "on_failure", "always")),
            str(node.get("name", "")),
            {kind: " ".join(_texts(file, f"{key}.reports.{kind}", path)) for kind, path in reports.items()},
        ),
    )


def _environment(file: str, key: str, node: Any) -> Environment | None:
    if node is None:
        return None
    node = {"name": node} if isinstance(node, str) else node
    only(file, key, node, {"name", "action", "url", "on_stop", "auto_stop_in", "deployment_tier"})
    if "auto_stop_in" in node:
        _seconds(file, f"{key}.auto_stop_in", node["auto_stop_in"])
    if "deployment_tier" in node:
        tiers = ("production", "staging", "testing", "development", "other")
        _one_of(file, f"{key}.deployment_tier", node["deployment_tier"], tiers)
    return Environment(
        str(node.get("name")),
        _one_of(file, f"{key}.action", node.get("action", "start"), ("start", "stop", "prepare", "verify", "access")),
        *(str(node.get(name, "")) for name in ("url", "on_stop", "auto_stop_in")),
    )


JOB_KEYWORDS = {
    "stage", "script", "before_script", "after_script", "variables", "rules", "needs", "dependencies", "artifacts",
    "tags", "image", "when", "allow_failure", "timeout", "resource_group", "environment", "interruptible", "retry",
    "cache",
}  # fmt: skip
RULE_KEYWORDS = {"if", "changes", "when", "allow_failure", "variables"}


def _job(file: str, name: str, node: Document) -> JobSpec:
    only(file, name, node, JOB_KEYWORDS)

    def texts(keyword: str) -> tuple[str, ...]:
        return _texts(file, f"{name}.{keyword}", node.get(keyword))

    if not texts("script"):
        refuse(file, f"{name}.script", "is empty", "Name the commands of the job, or start its name with a full stop")
    image = node.get("image") or ""
    if isinstance(image, dict):
        only(file, f"{name}.image", image, {"name"})
        image = image["name"]
    retry = node.get("retry", 0)
    retry = {"max": retry} if isinstance(retry, int) else retry
    only(file, f"{name}.retry", retry, {"max", "when"})
    if isinstance(node.get("cache"), dict):
        only(file, f"{name}.cache", node["cache"], {"key", "paths", "when", "policy"})
    allow_failure = node.get("allow_failure")
    return JobSpec(
        name=name,
        file=file,
        stage=str(node.get("stage", "test")),
        script=texts("before_script") + texts("script"),
        after_script=texts("after_script"),
        variables=_variables(file, f"{name}.variables", node.get("variables")),
        rules=_rules(file, f"{name}.rules", node.get("rules"), RULE_KEYWORDS),
        needs=None if node.get("needs") is None else _needs(file, f"{name}.needs", node["needs"]),
        dependencies=None if node.get("dependencies") is None else texts("dependencies"),
        artifacts=_artifacts(file, f"{name}.artifacts", node.get("artifacts")),
        tags=texts("tags"),
        image=str(image),
        when=_one_of(file, f"{name}.when", node.get("when", "on_success"), WHENS),
        allow_failure=None if allow_failure is None else _flag(file, f"{name}.allow_failure", allow_failure),
        timeout_seconds=_seconds(file, f"{name}.timeout", node.get("timeout", TIMEOUT_SECONDS)),
        resource_group=str(node.get("resource_group", "")),
        environment=_environment(file, f"{name}.environment", node.get("environment")),
        interruptible=_flag(file, f"{name}.interruptible", node.get("interruptible", False)),
        retry_max=_one_of(file, f"{name}.retry.max", retry.get("max", 0), (0, 1, 2)),
        retry_when=tuple(
            _one_of(file, f"{name}.retry.when", reason, RETRY_REASONS)
            for reason in _texts(file, f"{name}.retry.when", retry.get("when", "always"))
        ),
    )


def _check_graph(stages: Sequence[str], jobs: Mapping[str, JobSpec]) -> None:
    order = {stage: index for index, stage in enumerate(stages)}
    for name, job in jobs.items():
        if job.stage not in order:
            refuse(job.file, f"{name}.stage", f"{job.stage!r} is not in `stages`", f"Use one of {', '.join(stages)}")
        # As GitLab: an optional one may be no job at all.
        needed = [need.job for need in job.needs or () if need.job in jobs or not need.optional]
        named = [("needs", other) for other in needed] + [("dependencies", other) for other in job.dependencies or ()]
        for keyword, other in named:
            if other not in jobs:
                refuse(job.file, f"{name}.{keyword}", f"{other!r} is not a job")
            if order.get(jobs[other].stage, 0) > order[job.stage] or other == name:
                refuse(job.file, f"{name}.{keyword}", f"{other!r} is not in an earlier stage, nor in the same one")
        on_stop = job.environment.on_stop if job.environment else ""
        if on_stop and on_stop not in jobs:
            refuse(job.file, f"{name}.environment.on_stop", f"{on_stop!r} is not a job")
    done: set[str] = set()
    while ready := [
        name
        for name, job in jobs.items()
        if name not in done and all(need.job in done or need.job not in jobs for need in job.needs or ())
    ]:
        done.update(ready)
    if circle := [name for name in jobs if name not in done]:
        refuse(jobs[circle[0]].file, f"{circle[0]}.needs", f"the needs of {', '.join(circle)} are circular")


def read_pipeline(read: ReadFile, variables: Variables, file: str = ENTRY) -> Pipeline:
    """Read a project's pipeline. `variables` decide about includes only; `plan` evaluates the rules of jobs."""

    def allowed(including: str, key: str, node: Any) -> bool:
        rules = _rules(including, key, node, {"if", "when"})
        rule = next((rule for rule in rules or () if rule.applies(variables, None)), None)
        return rules is None or (rule is not None and rule.when != "never")

    document, origins = include(read, file, {}, allowed)
    keywords = {"stages", "default", "variables", "workflow"}
    stages = _texts(origins.get("stages", file), "stages", document.get("stages", list(STAGES)))
    default = document.get("default") or {}
    default_file = origins.get("default", file)
    only(default_file, "default", default, set(DEFAULTS))
    workflow_file = origins.get("workflow", file)
    workflow = document.get("workflow") or {}
    only(workflow_file, "workflow", workflow, {"rules", "name"})
    jobs = {}
    candidates = {str(name): node for name, node in document.items() if name not in keywords}
    for name in candidates:
        if name.startswith("."):
            continue
        if name in ("image", "services", "before_script", "after_script", "cache", "types", "pages"):
            refuse(origins[name], name, "is a deprecated global keyword", "Put it under `default`")
        node = default | extended(candidates, origins, name)
        jobs[name] = _job(origins[name], name, dereferenced(document, origins[name], name, node))
    # GitLab's own first and last stage.
    stages = (".pre", *(stage for stage in stages if stage not in (".pre", ".post")), ".post")
    _check_graph(stages, jobs)
    return Pipeline(
        stages,
        jobs,
        _variables(origins.get("variables", file), "variables", document.get("variables"), described=True),
        _rules(workflow_file, "workflow.rules", workflow.get("rules"), {"if", "changes", "when", "variables"}),
    )


def plan(pipeline: Pipeline, variables: Variables, changed: AbstractSet[str] | None = None) -> list[Planned]:
    """The jobs of a pipeline with these variables, in the order of stages; empty where `workflow` allows none.

    `variables` have precedence over those of the files: GitLab's predefined ones, the project's and the pipeline's.
    """
    base = dict(pipeline.variables)
    if pipeline.workflow is not None:
        rule = next((rule for rule in pipeline.workflow if rule.applies(base | dict(variables), changed)), None)
        if rule is None or rule.when == "never":
            return []
        base |= dict(rule.variables)
    planned = []
    for job in pipeline.jobs.values():
        own = base | dict(job.variables)
        when, allow_failure = job.when, job.allow_failure
        if job.rules is not None:
            rule = next((rule for rule in job.rules if rule.applies(own | dict(variables), changed)), None)
            if rule is None:
                continue
            when = rule.when or when
            allow_failure = rule.allow_failure if rule.allow_failure is not None else (allow_failure or False)
            own |= dict(rule.variables)
        if when == "never":
            continue
        # A manual job without rules does not hold up the pipeline.
        planned.append(Planned(job, when, when == "manual" if allow_failure is None else allow_failure, own))
    names = {entry.spec.name for entry in planned}
    for entry in planned:
        for need in entry.spec.needs or ():
            if need.job not in names and not need.optional:
                refuse(
                    entry.spec.file,
                    f"{entry.spec.name}.needs",
                    f"{need.job!r} is not in this pipeline, because its rules exclude it",
                    "Give both the same rules, or set `optional: true`",
                )
    order = {stage: index for index, stage in enumerate(pipeline.stages)}
    return sorted(planned, key=lambda entry: order[entry.spec.stage])


def with_variables(entry: Planned, variables: Variables) -> Planned:
    """Replace variables in the keywords where GitLab does so."""
    spec = entry.spec
    environment = spec.environment
    if environment is not None:
        environment = replace(
            environment, name=expand(environment.name, variables), url=expand(environment.url, variables)
        )
    return replace(
        entry,
        spec=replace(
            spec,
            image=expand(spec.image, variables),
            tags=tuple(expand(tag, variables) for tag in spec.tags),
            resource_group=expand(spec.resource_group, variables),
            environment=environment,
            artifacts=tuple(
                replace(
                    artifact,
                    name=expand(artifact.name, variables),
                    paths=tuple(expand(path, variables) for path in artifact.paths),
                )
                for artifact in spec.artifacts
            ),
        ),
    )
