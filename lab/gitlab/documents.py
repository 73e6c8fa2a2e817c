"""Files of a pipeline, merged into one document: inputs, includes, extends and references, in GitLab's order."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import yaml

LONGEST_CHAIN = 10
"""Of extends, references and includes: GitLab's own limit for references."""

ReadFile = Callable[[str], str]
Document = dict[str, Any]
Allowed = Callable[[str, str, Any], bool]
"""File, key and rules of an include → whether they allow it."""


class PipelineError(ValueError):
    """One sentence with the file, the key, what is wrong and what to do."""


class Reference(tuple[str, ...]):
    """The value of `!reference [job, key]`."""

    __slots__ = ()


class _Loader(yaml.SafeLoader):
    pass


def _construct_reference(loader: _Loader, node: yaml.Node) -> Reference:
    if not isinstance(node, yaml.SequenceNode):
        raise yaml.constructor.ConstructorError(None, None, "!reference is not followed by a list", node.start_mark)
    return Reference(loader.construct_sequence(node))


_Loader.add_constructor("!reference", _construct_reference)


def files_of_directory(root: Path) -> ReadFile:
    def read(path: str) -> str:
        return (root / path).read_text(encoding="utf-8")

    return read


def files_of_commit(repository: Path, commit: str) -> ReadFile:
    """Files of one commit of a git repository, bare or not."""

    def read(path: str) -> str:
        command = ["git", "-C", str(repository), "show", f"{commit}:{path}"]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        if process.returncode:
            raise FileNotFoundError(process.stderr.strip())
        return process.stdout

    return read


def refuse(file: str, key: str, wrong: str, remedy: str = "") -> NoReturn:
    raise PipelineError(f"{file}: {key}: {wrong}. {remedy or 'Correct the file'}.")


def only(file: str, key: str, node: Any, known: AbstractSet[str]) -> None:
    if not isinstance(node, dict):
        refuse(file, key, f"is {node!r}, not a mapping")
    if unknown := [name for name in node if name not in known]:
        refuse(file, f"{key}.{unknown[0]}", "is not implemented by lab.gitlab", "Remove it, or implement it there")


# Files: inputs, includes


def _load(read: ReadFile, file: str) -> tuple[Document, Document]:
    """The header (`spec`) and the content of a file."""
    try:
        documents = list(yaml.load_all(read(file), Loader=_Loader))
    except OSError:
        raise PipelineError(f"{file}: does not exist in this project. Correct the include.") from None
    except yaml.YAMLError as error:
        raise PipelineError(f"{file}: is not YAML ({' '.join(str(error).split())}). Correct the file.") from None
    if len(documents) == 2 and isinstance(documents[0], dict) and set(documents[0]) == {"spec"}:
        header, content = documents
    elif len(documents) == 1:
        header, content = {}, documents[0]
    else:
        refuse(file, "file", f"has {len(documents)} documents", "Write one, and before it one with `spec` only")
    if not isinstance(content, dict):
        refuse(file, "file", "is not a mapping of keywords and jobs")
    return header, content


INPUT_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "boolean": bool,
    "number": (int, float),
    "array": list,
}


def _inputs(file: str, header: Document, given: Mapping[str, Any]) -> dict[str, Any]:
    """The value of each input that the file declares."""
    spec = header.get("spec") or {}
    only(file, "spec", spec, {"inputs"})
    declared = spec.get("inputs") or {}
    if unknown := [name for name in given if name not in declared]:
        refuse(file, f"spec.inputs.{unknown[0]}", "is given by an include, but not declared", "Declare or remove it")
    values = {}
    for name, options in declared.items():
        options = options or {}
        key = f"spec.inputs.{name}"
        only(file, key, options, {"type", "default", "description", "options"})
        if name not in given and "default" not in options:
            refuse(file, key, "has no default and is not given by the include", "Give it under `inputs`")
        value = given.get(name, options.get("default"))
        kind = options.get("type", "string")
        if kind not in INPUT_TYPES:
            refuse(file, key, f"the type {kind!r} is not implemented", f"Use one of {', '.join(INPUT_TYPES)}")
        if not isinstance(value, INPUT_TYPES[kind]) or (kind == "number" and isinstance(value, bool)):
            refuse(file, key, f"is {value!r}, not of type {kind}")
        if "options" in options and value not in options["options"]:
            refuse(file, key, f"is {value!r}", f"Use one of {', '.join(map(str, options['options']))}")
        values[name] = value
    return values


_INPUT = re.compile(r"\$\[\[\s*(.*?)\s*\]\]")


def _interpolate(file: str, node: Any, inputs: Mapping[str, Any]) -> Any:
    """Replace `$[[ inputs.x ]]`; a text of nothing else becomes the input's value, whatever its type."""

    def value_of(expression: str) -> Any:
        name = expression.removeprefix("inputs.")
        if name == expression or name not in inputs:
            refuse(file, f"$[[ {expression} ]]", "is not an input of this file", "Declare it under spec.inputs")
        return inputs[name]

    if isinstance(node, Reference):
        return Reference(_interpolate(file, part, inputs) for part in node)
    if isinstance(node, dict):
        return {_interpolate(file, key, inputs): _interpolate(file, value, inputs) for key, value in node.items()}
    if isinstance(node, list):
        return [_interpolate(file, value, inputs) for value in node]
    if not isinstance(node, str):
        return node
    if match := _INPUT.fullmatch(node):
        return value_of(match[1])
    return _INPUT.sub(lambda match: str(value_of(match[1])), node)


def merge(base: Any, over: Any) -> Any:
    """GitLab's merge: mappings are merged, everything else is replaced."""
    if isinstance(base, dict) and isinstance(over, dict):
        return base | {key: merge(base[key], value) if key in base else value for key, value in over.items()}
    return over


def include(
    read: ReadFile, file: str, inputs: Mapping[str, Any], allowed: Allowed, parents: tuple[str, ...] = ()
) -> tuple[Document, dict[str, str]]:
    """A file merged over those that it includes, and the file of each key."""
    if len(parents) > LONGEST_CHAIN:
        refuse(file, "include", f"is nested more than {LONGEST_CHAIN} deep by {' → '.join(parents[:4])} …")
    header, content = _load(read, file)
    content = _interpolate(file, content, _inputs(file, header, inputs))
    includes = content.pop("include", [])
    merged: Document = {}
    origins: dict[str, str] = {}
    for index, entry in enumerate(includes if isinstance(includes, list) else [includes]):
        key = f"include[{index}]"
        entry = {"local": entry} if isinstance(entry, str) else entry
        only(file, key, entry, {"local", "inputs", "rules"})
        if not isinstance(entry.get("local"), str) or "*" in entry["local"] or "://" in entry["local"]:
            refuse(file, key, f"is {entry!r}", "Name one file of this project under `local`")
        if not allowed(file, f"{key}.rules", entry.get("rules")):
            continue
        path = str(PurePosixPath(entry["local"].lstrip("/")))
        below, below_origins = include(read, path, entry.get("inputs") or {}, allowed, (*parents, file))
        merged = merge(merged, below)
        origins |= below_origins
    return merge(merged, content), origins | dict.fromkeys(content, file)


# Jobs: extends, references


def extended(jobs: Mapping[str, Any], origins: Mapping[str, str], name: str, chain: tuple[str, ...] = ()) -> Document:
    job = jobs[name]
    if not isinstance(job, dict):
        refuse(origins[name], name, "is not a mapping of keywords")
    if name in chain or len(chain) > LONGEST_CHAIN:
        refuse(origins[name], f"{name}.extends", f"is circular or too long: {' → '.join((*chain, name))}")
    result: Document = {}
    parents = job.get("extends", [])
    for parent in [parents] if isinstance(parents, str) else parents:
        if parent not in jobs:
            refuse(origins[name], f"{name}.extends", f"{parent!r} does not exist")
        result = merge(result, extended(jobs, origins, parent, (*chain, name)))
    return {key: value for key, value in merge(result, job).items() if key != "extends"}


def dereferenced(document: Document, file: str, key: str, node: Any, depth: int = 0) -> Any:
    """Replace each !reference by what it names; in a list, a list that it names is inserted."""
    if isinstance(node, Reference):
        if depth > LONGEST_CHAIN:
            refuse(file, key, f"!reference {list(node)} is circular or too long")
        target: Any = document
        for part in node:
            if not isinstance(target, dict) or part not in target:
                refuse(file, key, f"!reference {list(node)} does not exist")
            target = target[part]
        return dereferenced(document, file, key, target, depth + 1)
    if isinstance(node, dict):
        return {name: dereferenced(document, file, f"{key}.{name}", value, depth) for name, value in node.items()}
    if isinstance(node, list):
        result: list[Any] = []
        for value in node:
            found = dereferenced(document, file, key, value, depth)
            result += found if isinstance(found, list) and isinstance(value, Reference | list) else [found]
        return result
    return node
