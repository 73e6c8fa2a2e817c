"""Lookup: a rendered template, without the copy of all variables that Ansible's own lookup creates for each file."""

from __future__ import annotations

DOCUMENTATION = r"""
name: template
author: [Slipway]
short_description: Render a template file of the role
description:
  - Renders like P(ansible.builtin.template#lookup) with its defaults, but passes the variables instead of a copy of
    all of them. For an environment of ten hosts the copy takes sixty milliseconds of processor time
    for each file and host (docs/adr/0008-cost-of-a-run.md).
  - Files are found as by P(ansible.builtin.template#lookup), in the role's C(templates) folder first.
options:
  _terms:
    description: Paths of template files, relative to C(templates).
    required: true
    type: list
    elements: str
  template_vars:
    description: Further variables for these files alone.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Print the rendered file
  ansible.builtin.debug:
    msg: "{{ lookup('slipway.platform.template', 'etc/hosts.j2') }}"
"""

RETURN = r"""
_raw:
  description: Rendered text of each file.
  type: list
  elements: str
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible.template import trust_as_template


class LookupModule(LookupBase):
    def run(self, terms: list[str], variables: Mapping[str, Any] | None = None, **kwargs: Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        return [self._rendered(term, variables or {}, self.get_option("template_vars")) for term in terms]

    def _rendered(self, term: str, variables: Mapping[str, Any], added: Mapping[str, Any]) -> str:
        path = self.find_file_in_search_path(variables, "templates", term)
        if not path:
            raise AnsibleLookupError(f"template {term!r} is not in the templates folder of the role or play")
        assert self._templar is not None and self._loader is not None  # set by Ansible before it calls run
        folders = [
            folder for base in variables.get("ansible_search_path", []) for folder in (f"{base}/templates", base)
        ]
        merged: dict[str, Any] = {"available_variables": {**variables, **added}} if added else {}
        templar = self._templar.copy_with_new_env(searchpath=[str(Path(path).parent), *folders], **merged)
        source = trust_as_template(self._loader.get_text_file_contents(path))
        return str(templar.template(source, escape_backslashes=False))
