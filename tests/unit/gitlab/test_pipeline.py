"""The reader of .gitlab-ci.yml."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from lab.gitlab.documents import PipelineError, ReadFile
from lab.gitlab.pipeline import Pipeline, Planned, plan, read_pipeline, seconds_of, with_variables


def files(**texts: str) -> ReadFile:
    """Names with __ for . and /: `ci__a` is ci/a.yml."""
    contents = {name.replace("__", "/") + ".yml": text for name, text in texts.items()}

    def read(path: str) -> str:
        name = "main.yml" if path == ".gitlab-ci.yml" else path
        if name not in contents:
            raise FileNotFoundError(path)
        return contents[name]

    return read


def read(text: str, variables: Mapping[str, str] | None = None, **others: str) -> Pipeline:
    return read_pipeline(files(main=text, **others), variables or {})


def planned(text: str, changed: set[str] | None = None, **variables: str) -> dict[str, Planned]:
    return {entry.spec.name: entry for entry in plan(read(text, variables), variables, changed)}


def test_defaults_extends_and_scripts() -> None:
    pipeline = read("""
default:
  tags: [build]
  before_script: [prepare]
.base: &anchor
  variables: { A: "1", B: "1" }
  script: [base]
  artifacts: { paths: [out/], reports: { junit: [a.xml, b.xml] } }
.other:
  variables: { B: "2" }
  artifacts: { when: always }
job:
  extends: [.base, .other]
  script: [own, !reference [.base, script]]
  timeout: 1h 30m
plain:
  <<: *anchor
  tags: []
  before_script: []
  image: { name: debian:13 }
  needs: [{ job: job, artifacts: false }]
""")
    job, plain = pipeline.jobs["job"], pipeline.jobs["plain"]
    assert job.script == ("prepare", "own", "base")
    assert (job.tags, job.stage, job.timeout_seconds) == (("build",), "test", 5400)
    assert job.variables == {"A": "1", "B": "2"}
    assert (job.artifacts[0].paths, job.artifacts[0].when) == (("out/",), "always")
    assert job.artifacts[0].reports == {"junit": "a.xml b.xml"}
    assert (plain.script, plain.tags, plain.image) == (("base",), (), "debian:13")
    assert plain.needs is not None and not plain.needs[0].artifacts
    assert set(pipeline.jobs) == {"job", "plain"}
    assert pipeline.stages == (".pre", "build", "test", "deploy", ".post")


def test_includes_with_inputs_are_merged_below_the_file() -> None:
    pipeline = read(
        """
include:
  - local: ci/job.yml
    inputs: { name: one, needs: [] }
  - local: /ci/job.yml
    inputs: { name: two, needs: [{ job: job-one, optional: true }] }
  - local: ci/never.yml
    rules: [{ if: $NEVER }]
job-two: { variables: { A: here } }
""",
        ci__job="""
spec:
  inputs:
    name: { type: string, options: [one, two] }
    needs: { type: array }
    number: { type: number, default: 2 }
---
"job-$[[ inputs.name ]]":
  needs: $[[ inputs.needs ]]
  retry: $[[ inputs.number ]]
  variables: { A: there, B: "x-$[[ inputs.name ]]" }
  script: echo
""",
    )
    assert [need.job for need in pipeline.jobs["job-two"].needs or ()] == ["job-one"]
    assert pipeline.jobs["job-two"].variables == {"A": "here", "B": "x-two"}
    assert pipeline.jobs["job-two"].retry_max == 2
    assert pipeline.jobs["job-one"].file == "ci/job.yml"


RULES = """
stages: [first, second]
variables: { LEVEL: global }
workflow:
  rules:
    - if: $SOURCE == "none"
      when: never
    - if: $SOURCE
      variables: { LEVEL: workflow }
manual: { stage: first, script: a, when: manual }
ruled:
  stage: second
  script: a
  variables: { OWN: job }
  rules:
    - if: $SOURCE == "schedule"
      when: never
    - changes: [docs/**]
      when: manual
    - if: $SOURCE == "push"
      variables: { OWN: rule }
      allow_failure: true
blocking: { stage: second, script: a, rules: [{ when: manual }] }
"""


def test_rules_choose_the_jobs_and_how_they_run() -> None:
    entries = planned(RULES, {"README.md"}, SOURCE="push")
    assert list(entries) == ["manual", "ruled", "blocking"]
    assert (entries["ruled"].when, entries["ruled"].allow_failure) == ("on_success", True)
    assert entries["ruled"].variables == {"LEVEL": "workflow", "OWN": "rule"}
    # A manual job holds up the pipeline only if rules made it manual.
    assert (entries["manual"].when, entries["manual"].allow_failure) == ("manual", True)
    assert (entries["blocking"].when, entries["blocking"].allow_failure) == ("manual", False)
    assert planned(RULES, {"docs/a/b.md"}, SOURCE="push")["ruled"].when == "manual"
    assert "ruled" not in planned(RULES, None, SOURCE="schedule")
    assert planned(RULES, None, SOURCE="none") == {}
    assert planned(RULES, None) == {}


def test_variables_of_the_project_have_precedence_in_rules() -> None:
    text = "a: { script: x, variables: { WHERE: file }, rules: [{ if: $WHERE == 'project' }] }"
    assert planned(text) == {}
    assert list(planned(text, WHERE="project")) == ["a"]


def test_keywords_take_variables() -> None:
    [entry] = planned("""
a:
  script: x
  image: $IMAGE
  tags: [$IMAGE]
  resource_group: group/$WHERE
  environment: { name: review/$WHERE, url: "https://$WHERE", action: stop }
  artifacts: { paths: ["out/$WHERE"] }
""").values()
    spec = with_variables(entry, {"IMAGE": "debian", "WHERE": "here"}).spec
    assert (spec.image, spec.tags, spec.resource_group) == ("debian", ("debian",), "group/here")
    assert spec.environment is not None
    assert (spec.environment.name, spec.environment.url) == ("review/here", "https://here")
    assert spec.artifacts[0].paths == ("out/here",)


REFUSED = [
    ("a: { script: x, parallel: 2 }", ".gitlab-ci.yml: a.parallel: is not implemented"),
    ("a: { script: x, services: [db] }", "a.services: is not implemented"),
    ("a: { trigger: x }", "a.trigger: is not implemented"),
    ("a: { script: x, only: [main] }", "a.only: is not implemented"),
    ("a: { script: x, needs: [{ pipeline: b }] }", "a.needs[0].pipeline: is not implemented"),
    ("a: { script: x, artifacts: { untracked: true } }", "a.artifacts.untracked: is not implemented"),
    ("a: { script: x, rules: [{ exists: [b] }] }", "a.rules[0].exists: is not implemented"),
    ("a: { script: x, rules: [{ if: $A = 1 }] }", "a.rules[0]: '= 1' is not understood"),
    ("a: { script: x, rules: [{ changes: ['{a,b}'] }] }", "a.rules[0]: "),
    ("default: { hooks: {} }\na: { script: x }", "default.hooks: is not implemented"),
    ("image: debian\na: { script: x }", "image: is a deprecated global keyword. Put it under `default`."),
    ("include: [{ project: a/b }]\na: { script: x }", "include[0].project: is not implemented"),
    ("include: ci/*.yml\na: { script: x }", "include[0]: is {'local': 'ci/*.yml'}"),
    ("include: ci/none.yml", "ci/none.yml: does not exist in this project"),
    ("a: [", ".gitlab-ci.yml: is not YAML"),
    ("a: b", "a: is not a mapping"),
    ("a: { stage: test }", "a.script: is empty"),
    ("a: { script: x, stage: none }", "a.stage: 'none' is not in `stages`"),
    ("a: { script: x, extends: .none }", "a.extends: '.none' does not exist"),
    (".a: { extends: .b }\n.b: { extends: .a }\nc: { extends: .a, script: x }", "extends: is circular"),
    ("a: { script: [!reference [.none, script]] }", "a.script: !reference ['.none', 'script'] does not exist"),
    (".a: { script: !reference [.a, script] }\nb: { script: !reference [.a, script] }", "is circular"),
    ("a: { script: !reference x }", "!reference is not followed by a list"),
    ("a: { script: x, needs: [b] }", "a.needs: 'b' is not a job"),
    ("a: { script: x, needs: [b] }\nb: { script: x, needs: [a] }", "the needs of a, b are circular"),
    ("a: { script: x, stage: build, needs: [b] }\nb: { script: x }", "a.needs: 'b' is not in an earlier stage"),
    ("a: { script: x, dependencies: [b] }", "a.dependencies: 'b' is not a job"),
    ("a: { script: x, when: later }", "a.when: is 'later'. Use one of on_success"),
    ("a: { script: x, timeout: soon }", "a.timeout: is 'soon', not a duration"),
    ("a: { script: x, allow_failure: { exit_codes: 1 } }", "a.allow_failure: is {'exit_codes': 1}"),
    ("a: { script: x, variables: { A: [1] } }", "a.variables.A: is [1], not a text or number"),
    ("a: { script: x, variables: { A: true } }", "a.variables.A: is True, not a text or number"),
    ("a: { script: x, retry: 3 }", "a.retry.max: is 3"),
    ("a: { script: x, environment: { name: e, on_stop: b } }", "a.environment.on_stop: 'b' is not a job"),
    ("a: { script: x, rules: { if: $A } }", "a.rules: is not a list"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_is_not_implemented_is_refused_with_file_and_key(text: str, message: str) -> None:
    with pytest.raises(PipelineError, match=re.escape(message)):
        read(text)


def test_an_optional_need_may_be_no_job() -> None:
    assert list(planned("a: { script: x, needs: [{ job: b, optional: true }] }")) == ["a"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "ci/job.yml: spec.inputs.name: has no default"),
        ({"name": 1}, "ci/job.yml: spec.inputs.name: is 1, not of type string"),
        ({"name": "a", "other": "b"}, "ci/job.yml: spec.inputs.other: is given by an include, but not declared"),
    ],
)
def test_inputs_are_checked(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(PipelineError, match=re.escape(message)):
        read(
            f"include: [{{ local: ci/job.yml, inputs: {inputs} }}]",
            ci__job="spec: { inputs: { name: } }\n---\n'$[[ inputs.name ]]': { script: x }\n",
        )


def test_an_input_that_is_not_declared() -> None:
    with pytest.raises(PipelineError, match="is not an input of this file"):
        read("a: { script: '$[[ inputs.b ]]' }")


def test_a_needed_job_that_rules_exclude() -> None:
    text = "a: { script: x, rules: [{ if: $A }] }\nb: { script: x, needs: %s }"
    with pytest.raises(PipelineError, match=r"b\.needs: 'a' is not in this pipeline"):
        planned(text % "[a]")
    assert list(planned(text % "[{ job: a, optional: true }]")) == ["b"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", 600),
        ("1h 30m", 5400),
        ("8 hours", 28800),
        ("1 day and 1 hour", 90000),
        ("2 weeks", 1209600),
        ("30s", 30),
    ],
)
def test_durations(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds
