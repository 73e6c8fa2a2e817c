"""Finds the messages of roles, plays and plugins, and the names in them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.static.repository import REPOSITORY, load

MESSAGE_KEYS = {"msg", "fail_msg", "success_msg"}
UNKNOWN = "{}"
"""Replaces a value in the text of a message."""
EXPRESSION = re.compile(r"\{\{.*?\}\}", re.S)
LITERAL = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"", re.S)
FILE = re.compile(r"[\w./{}<>-]*[\w{}>-]\.(?:yml|md|py|sh|cfg)\b")


def yaml_messages(document: Any, message: bool = False) -> Iterator[str]:
    """What a document of tasks or variables can print: values of MESSAGE_KEYS, and sentences within expressions."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield from yaml_messages(value, message or key in MESSAGE_KEYS)
    elif isinstance(document, list):
        for value in document:
            yield from yaml_messages(value, message)
    elif isinstance(document, str):
        if message:
            yield EXPRESSION.sub(UNKNOWN, document)
        for expression in EXPRESSION.findall(document):
            yield from literals(expression, spaced=not message)


def literals(expression: str, spaced: bool) -> Iterator[str]:
    for match in LITERAL.finditer(expression):
        text = match[1] or match[2] or ""
        if " " in text or not spaced:
            yield text


def yaml_expressions(document: Any) -> Iterator[str]:
    """Every string of a document outside of messages, without the literals within it."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key not in MESSAGE_KEYS | {"name"}:
                yield from yaml_expressions(value)
    elif isinstance(document, list):
        for value in document:
            yield from yaml_expressions(value)
    elif isinstance(document, str):
        yield LITERAL.sub("", document)


def python_messages(source: str) -> Iterator[str]:
    """Every sentence of a module outside of its documentation; values in it are UNKNOWN."""
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant() as text):
                skipped.add(id(text))
            case ast.Assign(targets=[ast.Name(id="DOCUMENTATION" | "EXAMPLES" | "RETURN")], value=text):
                skipped.add(id(text))
            case ast.JoinedStr(values=parts):
                skipped |= {id(part) for part in parts}
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else UNKNOWN for part in parts)
            case ast.Constant(value=str(text)) if " " in text and id(node) not in skipped:
                yield text


def yaml_files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted(path for path in (REPOSITORY / folder).rglob("*.yml") if "meta" not in path.parts)


def messages() -> Iterator[tuple[str, str]]:
    """File → each of its messages."""
    for path in yaml_files("roles", "playbooks"):
        if not path.name.endswith(".meta.yml"):
            for text in yaml_messages(load(path)):
                yield str(path.relative_to(REPOSITORY)), text
    for folder in ("roles", "collections"):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            for text in python_messages(path.read_text()):
                yield str(path.relative_to(REPOSITORY)), text


def options_named(text: str, prefixes: set[str]) -> set[str]:
    """Variables named in a text by their prefix; without those joined to an unknown value."""
    pattern = rf"(?<![\w./}}<-])(?:{'|'.join(sorted(prefixes))})_[a-z0-9_]+\b\*?(?![{{<(.]\w)(?!\{{)"
    return set(re.findall(pattern, text))


def files_named(text: str) -> set[str]:
    """Files of the repository named in a text, relative to it, to an environment or to the plays."""
    return {
        name
        for found in FILE.findall(text)
        if not (name := re.sub(r"^(?:inventories/(?:\{\}|<\w+>)|\{\})/", "", found)).startswith("/")
        and not re.search(r"[{}<>]", name)
    }
