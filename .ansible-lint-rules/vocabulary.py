"""The words of the code base: one table, and the functions that check a name against it.

The ansible-lint rules of this directory, tests/static/test_language.py and the command line read this table:

    python .ansible-lint-rules/vocabulary.py roles/ceph playbooks/ceph.yml

lists the faults of all YAML and Python files below the paths. CONTRIBUTING.md explains the rules.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


VERBS = _words(
    """
    Add Apply Attach Authorize Back Bootstrap Build Check Choose Collect Compare Configure Converge Copy Cordon Create
    Delete Demote Deploy Detach Disable Download Drain Enable Ensure Expire Export Fail Fence Fetch Find Format Gather
    Generate Grant Import Include Initialize Install Issue Join Kill List Load Mark Migrate Mount Move Pause Plan Power
    Prepare Print Probe Promote Provision Read Rebalance Reboot Record Register Reload Remove Render Renew Require Reset
    Resize Restart Restore Resume Revoke Rewind Roll Rotate Run Save Set Sign Skip Start Stop Switch Sync Test Uncordon
    Unmount Update Upgrade Upload Validate Verify Wait Wipe Write
    """
)
"""First words of the names of plays, blocks, tasks and handlers."""

FOLLOWED_BY = {"Back": "up"}
"""Verbs of VERBS that mean an action only with this second word."""

PRONOUNS = _words(
    """
    it itself them themselves they he she what whatever who whom whoever nobody somebody everybody anybody someone
    everyone anyone something anything everything nothing
    """
)
"""Pronouns that never name an object."""

DEMONSTRATIVES = frozenset({"this", "that", "these", "those"})
"""Pronouns at the end of a name or before one of FUNCTION_WORDS; before a noun they are articles."""

POSSESSIVES = frozenset({"its", "their", "his", "her"})
"""Without an owner in the name where they follow the verb: "Create its subnet"."""

FUNCTION_WORDS = _words("and as at before by for from in into is of on or to until when where with")

GLOSSARY = {
    "anew": "again, or the action itself: restart, initialize",
    "ask asks asked": "query, request, read",
    "aside": "previous data directory",
    "begin begins begun": "start, bootstrap, initialize",
    "believe believes believed": "verify, trust",
    "birth births born": "bootstrap",
    "blank blanked": "wipe",
    "bring brings brought": "restore, start, converge",
    "door doors": "endpoint, listener, port",
    "enemy enemies": "peer, client",
    "eyes": "status as seen by a server",
    "founding founds founded founder": "bootstrap",
    "judge judges judged judgement": "validate, verify",
    "look looks looked": "check, collect, read",
    "say says said": "print, report, output",
    "stranger strangers": "PUBLIC, undeclared object",
    "tell tells told": "print, declared",
    "truth truths": "settings, state",
    "voice voices": "admin host",
    "way ways": "path, timeline, rollback",
    "went": "down, lost, failed",
    "whole": "healthy, quorum, complete",
}
"""Words that are not used in any name → words of the field that replace them."""

GLOSSARY_OF_NAMES = {
    "prove proves proved": "verify",
    "speaks speak": "admin host",
    "nobody": "no host, no user",
    "forget forgets": "reset, remove",
    "stand-in": "simulation, test double",
}
"""The same for the names of plays, blocks, tasks and handlers alone."""

GLOSSARY_OF_IDENTIFIERS = {
    "act acts": "action, apply",
    "beat beats": "heartbeat",
    "hand hands": "owner, operator",
    "place places": "path, location, host",
    "prove proves": "verify",
}
"""The same for variables, functions and classes alone."""

ALLOWED_IDENTIFIERS = re.compile(r"look_?up|back_?up|by_hand|in_place|as_a_whole", re.I)
"""Terms of the field that contain a word of the table."""


def _by_word(*tables: dict[str, str]) -> dict[str, str]:
    return {word: instead for table in tables for words, instead in table.items() for word in words.split()}


WORDS_OF_NAMES = _by_word(GLOSSARY, GLOSSARY_OF_NAMES)
WORDS_OF_IDENTIFIERS = _by_word(GLOSSARY, GLOSSARY_OF_IDENTIFIERS)


@dataclass(frozen=True)
class Fault:
    line: int
    rule: str
    message: str


def words_of_name(name: str) -> list[str]:
    """Words of a task's name, without the prefix `file | ` and without templates."""
    text = re.sub(r"\{\{.*?\}\}", " ", name, flags=re.S).rpartition(" | ")[2]
    return re.findall(r"[\w'./-]*\w", text)


def check_verb(name: str) -> str | None:
    words = words_of_name(name)
    if not words or name.rpartition(" | ")[2].lstrip().startswith("{{"):
        return None
    first, second = words[0], words[1] if len(words) > 1 else ""
    if first not in VERBS:
        return f'"{name}": the first word "{first}" is not a verb of the list. Start with one of VERBS.'
    if first in FOLLOWED_BY and second != FOLLOWED_BY[first]:
        return (
            f'"{name}": "{first}" is a verb only before "{FOLLOWED_BY[first]}". Write "{first} {FOLLOWED_BY[first]}".'
        )
    return None


def check_pronoun(name: str) -> str | None:
    words = [word.lower() for word in words_of_name(name)]
    for at, word in enumerate(words):
        following = words[at + 1] if at + 1 < len(words) else ""
        if (
            word in PRONOUNS
            or (word in DEMONSTRATIVES and (not following or (word != "that" and following in FUNCTION_WORDS)))
            or (word in POSSESSIVES and at <= 1)
        ):
            return f'"{name}": "{word}" has no noun in this name. Name the object.'
    return None


def check_words_of_name(name: str) -> str | None:
    for word in words_of_name(name)[1:]:  # check_verb holds the first word
        if instead := WORDS_OF_NAMES.get(word.lower()):
            return f'"{name}": "{word}" is not a word of the glossary. Use: {instead}.'
    return None


def check_identifier(identifier: str) -> str | None:
    """A variable, function, class or parameter; words are separated by underscores or capitals."""
    text = ALLOWED_IDENTIFIERS.sub("", identifier)
    for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", text):
        if instead := WORDS_OF_IDENTIFIERS.get(word.lower()):
            return f'{identifier}: "{word.lower()}" is not a word of the glossary. Use: {instead}.'
    return None


NAME_CHECKS = {"verb": check_verb, "pronoun": check_pronoun, "glossary": check_words_of_name}

TASK_LISTS = ("pre_tasks", "tasks", "post_tasks", "handlers", "block", "rescue", "always")


def _pairs(node: yaml.Node) -> Iterator[tuple[str, int, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield str(key.value), key.start_mark.line + 1, value


def _identifiers(node: yaml.Node) -> Iterator[Fault]:
    for name, line, _ in _pairs(node):
        if fault := check_identifier(name):
            yield Fault(line, "glossary", fault)


def _entries(node: yaml.Node) -> Iterator[Fault]:
    """A list of plays or tasks."""
    for entry in node.value if isinstance(node, yaml.SequenceNode) else ():
        for key, line, value in _pairs(entry):
            module = key.rpartition(".")[2]
            if key == "name" and isinstance(value, yaml.ScalarNode):
                for rule, check in NAME_CHECKS.items():
                    if fault := check(value.value):
                        yield Fault(line, rule, fault)
            elif key in TASK_LISTS:
                yield from _entries(value)
            elif key == "vars" or module == "set_fact":
                yield from _identifiers(value)
            elif key == "roles" and isinstance(value, yaml.SequenceNode):
                for role in value.value:
                    for name, _, variables in _pairs(role):
                        yield from _identifiers(variables) if name == "vars" else ()
            elif key in ("register", "loop_control"):
                names = (
                    [value] if key == "register" else [node for name, _, node in _pairs(value) if name == "loop_var"]
                )
                for scalar in names:
                    if isinstance(scalar, yaml.ScalarNode) and (fault := check_identifier(scalar.value)):
                        yield Fault(scalar.start_mark.line + 1, "glossary", fault)


def _options(node: yaml.Node) -> Iterator[Fault]:
    """Names of the options of an argument spec, at any depth."""
    for key, _, value in _pairs(node):
        if key == "options":
            yield from _identifiers(value)
        yield from _options(value)


def check_yaml(text: str, *, variables: bool = True) -> list[Fault]:
    """Faults of a file of plays, tasks, variables or argument specs; with `variables` false a mapping is not read."""
    # Files of the pipeline have a header, a document of its own.
    return [
        fault
        for node in yaml.compose_all(text, Loader=yaml.CSafeLoader)
        for fault in _check_document(node, variables=variables)
    ]


def _check_document(node: yaml.Node | None, *, variables: bool) -> Iterator[Fault]:
    if isinstance(node, yaml.SequenceNode):
        yield from _entries(node)
    elif node and [key for key, _, _ in _pairs(node)] == ["argument_specs"]:
        yield from _options(node)
    elif node and variables:
        yield from _identifiers(node)


def check_python(text: str) -> list[Fault]:
    """Faults in the identifiers that a Python file defines, each identifier once."""
    lines: dict[str, int] = {}
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                lines.setdefault(name, node.lineno)
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                lines.setdefault(name, node.lineno)
    faults = [(line, check_identifier(name)) for name, line in lines.items()]
    return sorted((Fault(line, "glossary", fault) for line, fault in faults if fault), key=lambda fault: fault.line)


VARIABLE_DIRS = {"defaults", "vars", "group_vars", "host_vars", "meta"}


def check_file(path: Path) -> list[Fault]:
    text = path.read_text()
    stem = check_identifier(path.stem)
    faults = [Fault(1, "glossary", f"file {stem}")] if stem else []
    if path.suffix == ".py":
        return faults + check_python(text)
    return faults + check_yaml(text, variables=bool(VARIABLE_DIRS & set(path.parts)))


def files_below(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = (file for file in path.rglob("*") if file.suffix in (".yml", ".py"))
    return sorted(file for file in files if not {".ansible", ".venv", ".state"} & set(file.parts))


def main(arguments: list[str]) -> int:
    count = 0
    for argument in arguments:
        for path in files_below(Path(argument)):
            for fault in check_file(path):
                count += 1
                print(f"{path}:{fault.line}: {fault.rule}: {fault.message}")
    print(f"{count} faults", file=sys.stderr)
    return min(count, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
