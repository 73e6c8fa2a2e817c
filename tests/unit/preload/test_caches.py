"""What is kept between runs is what would have been made, and is made again when what it depends on changed."""

from __future__ import annotations

import base64
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any
from zipimport import zipimporter

import jinja2
import pytest
from ansible._internal._templating._jinja_bits import (
    AnsibleEnvironment,
    _TemplateCompileContext,
)
from ansible.executor.module_common import ModuleMetadataV1, _CachedModule
from ansible_collections.slipway.platform.plugins.plugin_utils import caches

FILTERS = Path(caches.__file__).parents[1] / "filter"
TEXTS = [
    "plain text",
    "{{ a }} and {{ b | default('c') | length }}",
    "{% for x in y %}\n{{ x }}\n{% endfor %}\n",
    "{{ 'back\\nslash' }}",
    "{{ lookup('env', '{{ name }}') }}",
    "{% set a = 1 %}{{ a is defined and a in [1, 2] }}",
]


@pytest.fixture
def cached(tmp_path: Path) -> type[AnsibleEnvironment]:
    class Cached(AnsibleEnvironment):
        pass

    caches.TemplateCache(tmp_path, FILTERS).install(Cached)
    return Cached


def parts(code: CodeType) -> tuple[Any, ...]:
    constants = tuple(parts(each) if isinstance(each, CodeType) else each for each in code.co_consts)
    return code.co_name, code.co_code, code.co_names, code.co_varnames, constants


def refuse(*arguments: Any, **more: Any) -> Any:
    raise AssertionError("compiled again")


@pytest.mark.parametrize("text", TEXTS)
def test_a_template_is_compiled_once_to_what_ansible_compiles(
    cached: type[AnsibleEnvironment], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    wanted = parts(AnsibleEnvironment().compile(text))
    assert parts(cached().compile(text)) == wanted
    monkeypatch.setattr(cached, "_generate", refuse)
    assert parts(cached().compile(text)) == wanted, "another environment, and another process, find it"


@pytest.mark.parametrize("text", ["a is defined and a | length > 0", "[1, 2] | sum == 3", "'x' in y"])
def test_an_expression_is_compiled_once(
    cached: type[AnsibleEnvironment], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    def code(environment: AnsibleEnvironment) -> tuple[Any, ...]:
        template = environment.compile_expression(text, undefined_to_none=False)._template
        return parts(template.root_render_func.__code__)

    wanted = code(AnsibleEnvironment())
    assert code(cached()) == wanted
    monkeypatch.setattr(cached, "_generate", refuse)
    monkeypatch.setattr("jinja2.environment.Parser", refuse)
    assert code(cached()) == wanted


def test_a_text_is_another_template_with_other_settings(cached: type[AnsibleEnvironment]) -> None:
    text = "{% if a %}\n{{ 'x\\ty' }}\n{% endif %}\n"
    found = {parts(cached().compile(text))}
    found.add(parts(cached().overlay(trim_blocks=False).compile(text)))
    with _TemplateCompileContext(escape_backslashes=True):
        found.add(parts(cached().compile(text)))
    with pytest.raises(jinja2.TemplateSyntaxError):
        cached().compile_expression(text)
    assert len(found) == 3


def test_an_error_is_raised_each_time(cached: type[AnsibleEnvironment]) -> None:
    for _ in range(2):
        with pytest.raises(jinja2.TemplateSyntaxError, match="expected token"):
            cached().compile("{{ a b }")
        with pytest.raises(jinja2.TemplateSyntaxError, match="chunk after expression"):
            cached().compile_expression("a b")


def test_a_full_disk_costs_time_alone(
    tmp_path: Path, cached: type[AnsibleEnvironment], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **more: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jinja2.bccache.tempfile.NamedTemporaryFile", full)
    assert parts(cached().compile("{{ a }}")) == parts(AnsibleEnvironment().compile("{{ a }}"))


def test_a_cache_for_something_else_is_removed_when_no_run_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = caches.folder_for(tmp_path, "modules", ["a", "b"])
    other = caches.folder_for(tmp_path, "templates", ["a", "b"])
    (first / "file").write_text("kept")
    assert caches.folder_for(tmp_path, "modules", ["a", "b"]) == first
    assert (first / "file").exists()
    assert caches.folder_for(tmp_path, "modules", ["ab"]) != first
    assert first.exists(), "a run may still use it"
    for folder in (first, other):
        os.utime(folder, (0, 0))
    caches.folder_for(tmp_path, "modules", ["ab"])
    assert not first.exists() and other.exists()
    monkeypatch.setattr(caches, "MOST_FILES", 1)
    for name in ("one", "two"):
        (other / name).write_text("")
    assert list(caches.folder_for(tmp_path, "templates", ["a", "b"]).iterdir()) == []


def test_modules_are_packed_again_when_their_source_or_a_collection_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = tmp_path / "c/ours/one", tmp_path / "c/theirs/two"
    (ours / "plugins/module_utils/deep").mkdir(parents=True)
    (ours / "plugins/modules").mkdir()
    (theirs / "plugins/modules").mkdir(parents=True)
    (theirs / "MANIFEST.json").write_text("{}")
    sources = [ours / "plugins/module_utils/deep/a.py", ours / "plugins/modules/b.py", theirs / "MANIFEST.json"]
    for path in sources:
        path.write_text("")
    package = type("Package", (), {"__path__": [str(tmp_path / "c")]})
    monkeypatch.setattr(caches, "import_module", lambda name: package)

    def folder(number: int, bytecode: bool = True) -> Path:
        temporary = tmp_path / f"run-{number}"
        temporary.mkdir()
        caches.keep_modules(tmp_path / "cache", temporary, bytecode)
        return (temporary / "ansiballz_cache").resolve()

    assert folder(0) == folder(1) != folder(2, bytecode=False)
    for number, path in enumerate(sources, 3):
        before = folder(10 * number)
        path.write_text("changed")
        assert folder(10 * number + 1) != before, path
    (theirs / "plugins/modules/c.py").write_text("its manifest has the checksum")
    assert folder(100) == folder(101)


def packed(sources: dict[str, str]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, source in sources.items():
            archive.writestr(name, source)
    return base64.b64encode(content.getvalue())


def rewrite(archive: bytes, path: Path, change: Callable[[str, bytes], bytes]) -> zipimporter:
    """Write the archive to `path` with its files changed, as Python imports from it."""
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(archive))) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return zipimporter(str(path))


def test_a_host_with_the_python_of_the_controller_does_not_compile(tmp_path: Path) -> None:
    archive = caches.with_bytecode(packed({"a/__init__.py": "", "a/b.py": "x = 'compiled'\n", "a/c.txt": "text"}))
    importer = rewrite(
        archive, tmp_path / "module.zip", lambda name, content: b"x = (" if name.endswith(".py") else content
    )
    values: dict[str, Any] = {}
    exec(zipimporter(f"{importer.archive}/a").get_code("b"), values)
    assert values["x"] == "compiled"
    with zipfile.ZipFile(importer.archive) as written:
        assert "a/c.txtc" not in written.namelist()


def test_a_host_with_another_python_compiles_the_source(tmp_path: Path) -> None:
    archive = caches.with_bytecode(packed({"b.py": "x = 'source'\n"}))
    importer = rewrite(
        archive,
        tmp_path / "module.zip",
        lambda name, content: b"\0\0\r\n" + content[4:] if name.endswith(".pyc") else content,
    )
    values: dict[str, Any] = {}
    exec(importer.get_code("b"), values)
    assert values["x"] == "source"


def test_a_module_is_kept_with_its_bytecode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_CachedModule, "dump", _CachedModule.dump)
    caches.compile_modules()
    module = _CachedModule(
        zip_data=packed({"b.py": "x = 1\n"}),
        metadata=ModuleMetadataV1(serialization_profile="legacy"),
        source_mapping={},
    )
    module.dump(str(tmp_path / "b"))
    kept = _CachedModule.load(str(tmp_path / "b"))
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(kept.zip_data))) as archive:
        assert archive.namelist() == ["b.py", "b.pyc"]
    assert kept.metadata == module.metadata
