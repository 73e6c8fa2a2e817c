"""Keep from run to run what Ansible makes in every run: compiled templates and modules, filters.

This changes classes and uses names of ansible-core that are no documented interface. It changes nothing but time: the
unit tests hold it against what it replaces, and docs/adr/0008-cost-of-a-run.md has the figures and the reasons.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import marshal
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import replace
from importlib import import_module
from importlib.util import MAGIC_NUMBER, source_hash
from pathlib import Path
from types import CodeType
from typing import Any

import jinja2
from ansible._internal._templating import _jinja_bits
from ansible._internal._templating._jinja_common import _TemplateConfig
from ansible._internal._templating._jinja_plugins import JinjaPluginIntercept
from ansible.executor.module_common import _CachedModule
from ansible.release import __version__ as core_version
from jinja2 import Environment
from jinja2.bccache import Bucket
from jinja2.environment import TemplateExpression

UNUSED_SECONDS = 86_400
"""What no run has begun with for so long, none uses."""
MOST_FILES = 20_000
"""Beyond this a cache is emptied: what its files were made of may have changed since. A site needs a thousand."""
UNCHECKED_BYTECODE = MAGIC_NUMBER + (1).to_bytes(4, "little")
"""Begins a .pyc file that is valid whatever the time of its source (PEP 552)."""


def folder_for(root: Path, kind: str, parts: Iterable[str]) -> Path:
    """The folder of a cache for these parts, on which alone its content depends; unused ones for others are removed."""
    digest = hashlib.sha256(core_version.encode())
    for part in parts:
        digest.update(part.encode() + b"\0")
    folder = root / f"{kind}-{digest.hexdigest()[:16]}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.utime(folder)
    for other in root.glob(f"{kind}-*"):
        if time.time() - other.stat().st_mtime > UNUSED_SECONDS:
            shutil.rmtree(other, ignore_errors=True)
    if sum(1 for _ in folder.iterdir()) > MOST_FILES:
        for path in folder.iterdir():
            path.unlink(missing_ok=True)
    return folder


def _stamps(paths: Iterable[Path]) -> Iterator[str]:
    for path in sorted(paths):
        status = path.stat()
        yield f"{path} {status.st_size} {status.st_mtime_ns}"


# --- modules ---------------------------------------------------------------------------------------------------------


def keep_modules(root: Path, temporary: Path, bytecode: bool) -> None:
    """Let Ansible find modules as they were packed for a former run: 0.15 s for each that a run uses.

    `temporary` is the folder of this run, in which Ansible looks. A release of it that looks elsewhere packs again.
    """
    python = sys.implementation.cache_tag if bytecode else None
    folder = folder_for(root, "modules", [f"bytecode {python}", *_stamps(_module_sources())])
    with contextlib.suppress(FileExistsError):
        (temporary / "ansiballz_cache").symlink_to(folder.resolve())


def compile_modules() -> None:
    """Let modules be packed with their bytecode: hosts need not compile them for each execution."""
    dump = _CachedModule.dump

    def dump_compiled(self: _CachedModule, path: str) -> None:
        dump(replace(self, zip_data=with_bytecode(self.zip_data)), path)

    _CachedModule.dump = dump_compiled  # type: ignore[method-assign]


def with_bytecode(packed: bytes) -> bytes:
    """A module as Ansible packs it (a zip archive in base64), with the bytecode beside each source.

    Python imports the bytecode if its version is the controller's, without a look at the source, else the source.
    """
    content = io.BytesIO(base64.b64decode(packed))
    with zipfile.ZipFile(content, "a") as archive:
        for entry in [entry for entry in archive.infolist() if entry.filename.endswith(".py")]:
            source = archive.read(entry)
            code = compile(source, entry.filename, "exec", dont_inherit=True, optimize=0)
            bytecode = zipfile.ZipInfo(f"{entry.filename}c", entry.date_time)
            bytecode.compress_type = entry.compress_type
            archive.writestr(bytecode, UNCHECKED_BYTECODE + source_hash(source) + marshal.dumps(code))
    return base64.b64encode(content.getvalue())


def _module_sources() -> Iterator[Path]:
    """Of every collection its manifest, which has a checksum of each file; of one without, like ours, its sources."""
    for root in import_module("ansible_collections").__path__:
        for collection in Path(root).glob("*/*/"):
            manifest = collection / "MANIFEST.json"
            if manifest.is_file():
                yield manifest
            else:
                yield from collection.glob("plugins/module*/**/*.py")


# --- templates -------------------------------------------------------------------------------------------------------


def share_plugins(environment: type[Environment] = _jinja_bits.AnsibleEnvironment) -> None:
    """Share the filters and tests that were found among all environments, and find those of Jinja now.

    Each environment searches `length` in ansible-core's package before Jinja's: 6 ms for every name.
    """
    shared: dict[str, dict[str, Any]] = {}
    original_init = JinjaPluginIntercept.__init__

    def init_shared(self: JinjaPluginIntercept, jinja_builtins: Any, plugin_loader: Any) -> None:
        original_init(self, jinja_builtins, plugin_loader)
        self._wrapped_funcs = shared.setdefault(plugin_loader.type, self._wrapped_funcs)

    JinjaPluginIntercept.__init__ = init_shared  # type: ignore[method-assign]
    first = environment()
    plugins: Any
    for plugins in (first.filters, first.tests):
        for name in plugins._jinja_builtins:
            plugins[name]


class TemplateCache:
    """Code of templates. Jinja's own cache holds files that a loader finds; Ansible compiles strings."""

    def __init__(self, root: Path, filters: Path) -> None:
        # How a filter is called is decided when the template is compiled.
        settings = [jinja2.__version__, repr(_TemplateConfig.allow_embedded_templates)]
        settings += [repr(_TemplateConfig.jinja_extensions), repr(_TemplateConfig.sandbox_mode)]
        folder = folder_for(root, "templates", [*settings, *_stamps(filters.glob("*.py"))])
        self._cache = jinja2.FileSystemBytecodeCache(str(folder), "%s")
        self._context, self._fields = _jinja_bits._TemplateCompileContext, _jinja_bits._TEMPLATE_OVERRIDE_FIELD_NAMES

    def install(self, environment: type[Environment] = _jinja_bits.AnsibleEnvironment) -> None:
        """Let every environment of this class take from the cache what it would compile."""
        cache, compile_source, compile_expression = self, environment.compile, environment.compile_expression
        expression: ContextVar[Bucket | None] = ContextVar("expression", default=None)

        def compile_cached(self: Any, source: Any, *args: Any, **kwargs: Any) -> Any:
            bucket = cache.bucket(self, "template", source) if isinstance(source, str) else expression.get()
            if bucket is None or args or kwargs:
                return compile_source(self, source, *args, **kwargs)
            if bucket.code is None:
                cache.save(bucket, compile_source(self, source))
            return bucket.code

        def compile_expression_cached(self: Any, source: str, undefined_to_none: bool = True) -> TemplateExpression:
            bucket = cache.bucket(self, "expression", source)
            if bucket.code is None:
                token = expression.set(bucket)
                try:
                    return compile_expression(self, source, undefined_to_none)  # parses, and compiles by compile_cached
                finally:
                    expression.reset(token)
            template = self.template_class.from_code(self, bucket.code, self.make_globals(None), None)
            return TemplateExpression(template, undefined_to_none)

        environment.compile = compile_cached  # type: ignore[method-assign]
        environment.compile_expression = compile_expression_cached  # type: ignore[method-assign]

    def bucket(self, environment: Any, kind: str, source: str) -> Bucket:
        """The place of a template in the cache, with its code when it is there."""
        context = self._context.current(optional=True)
        settings = [getattr(environment, name) for name in self._fields]
        name = f"{kind} {settings} {context.escape_backslashes if context else None} {source}"
        return self._cache.get_bucket(environment, name, None, source)

    def save(self, bucket: Bucket, code: CodeType) -> None:
        bucket.code = code
        with contextlib.suppress(OSError):  # a full disk costs time, and nothing else
            self._cache.set_bucket(bucket)
