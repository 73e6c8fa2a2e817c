"""Callback: load once, before the first worker process is forked, what every worker would load again."""

from __future__ import annotations

DOCUMENTATION = r"""
name: preload
type: aggregate
short_description: Load plugins before workers are forked
description:
  - Ansible forks a worker process for each task and host. What the parent has not loaded by then is imported again in
    every one of them, tens of milliseconds each time. This loads this collection's filters and the plugins that
    most tasks use, and freezes the parent's objects for the garbage collector, so that workers share their memory.
  - It changes nothing but time. docs/adr/0008-cost-of-a-run.md has the figures.
  - Compiled templates and packed modules are kept in O(cache_dir), for workers of this run and of later ones.
options:
  cache_dir:
    description:
      - Folder of the caches. Whoever can write to it can run code as whoever runs Ansible, so it belongs beside the
        code. It may be deleted at any time.
    type: path
    default: .ansible/cache
    ini:
      - section: callback_preload
        key: cache_dir
  bytecode:
    description:
      - Whether modules are sent with their bytecode, which hosts with the controller's Python (3.13 on Debian 13) run
        without compiling them, 0.08 s of processor time for each execution.
      - It adds 0.3 MB to what an execution sends, so V(false) is faster over a link of less than 30 Mbit/s.
    type: bool
    default: true
    ini:
      - section: callback_preload
        key: bytecode
requirements:
  - named in C(callbacks_enabled) of ansible.cfg
author: [Slipway]
"""

import gc
import pkgutil
from importlib import import_module
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins import loader
from ansible.plugins.callback import CallbackBase

COLLECTION = "slipway.platform"
PLUGINS: dict[str, tuple[str, ...]] = {
    "action_loader": (
        "ansible.builtin.assert",
        "ansible.builtin.command",
        "ansible.builtin.copy",
        "ansible.builtin.debug",
        "ansible.builtin.fail",
        "ansible.builtin.normal",
        "ansible.builtin.raw",
        "ansible.builtin.set_fact",
        "ansible.builtin.validate_argument_spec",
    ),
    "become_loader": ("ansible.builtin.sudo",),
    "connection_loader": ("ansible.builtin.local", "ansible.builtin.ssh"),
    "lookup_loader": ("ansible.builtin.env", "ansible.builtin.file", f"{COLLECTION}.template"),
    "shell_loader": ("ansible.builtin.sh",),
}
MODULES = (
    "ansible.module_utils._internal._json._profiles._module_legacy_c2m",
    "ansible.module_utils._internal._json._profiles._module_legacy_m2c",
    "cryptography.x509",
)
"""Imported at the first module of a process, for its arguments and results, and by filters over certificates."""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "slipway.platform.preload"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook: Any) -> None:
        for kind, names in PLUGINS.items():
            for name in names:
                if getattr(loader, kind).get(name, class_only=True) is None:
                    self._display.warning(f"The callback preload names {name}, which the {kind} does not find.")
        # The first use of any filter or test of a package loads all of that package's files.
        package = import_module(f"ansible_collections.{COLLECTION}.plugins.filter")
        for module in pkgutil.iter_modules(package.__path__):
            loader.filter_loader.get(f"{COLLECTION}.{module.name}")
        for kind in ("filter_loader", "test_loader"):
            list(getattr(loader, kind).all())
        for name in MODULES:
            import_module(name)
        self._keep(Path(self.get_option("cache_dir")), Path(package.__path__[0]))
        gc.collect()
        gc.freeze()

    def _keep(self, cache_dir: Path, filters: Path) -> None:
        """Use the caches, unless this ansible-core or the disk does not allow it."""
        try:
            caches = import_module(f"ansible_collections.{COLLECTION}.plugins.plugin_utils.caches")
            caches.share_plugins()
            caches.TemplateCache(cache_dir, filters).install()
            if bytecode := self.get_option("bytecode"):
                caches.compile_modules()
            caches.keep_modules(cache_dir, Path(constants.DEFAULT_LOCAL_TMP), bytecode)  # type: ignore[attr-defined]
        except (ImportError, AttributeError) as error:
            self._display.warning(f"preload: no caches for this ansible-core ({error}). Use the version in uv.lock.")
        except OSError as error:
            self._display.warning(
                f"preload: cache_dir {cache_dir} cannot be used ({error.strerror}). Make it writable."
            )
