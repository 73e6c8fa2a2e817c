"""What the rules of this directory share: they read a file of plays or tasks and report the faults of one check."""

from __future__ import annotations

from pathlib import Path

from ansiblelint.errors import MatchError
from ansiblelint.file_utils import Lintable
from ansiblelint.rules import AnsibleLintRule
from vocabulary import VARIABLE_DIRS, check_yaml

KINDS = ("playbook", "tasks", "handlers", "vars", "role-arg-spec")


class LanguageRule(AnsibleLintRule):
    """A rule without an id, which ansible-lint does not load."""

    severity = "MEDIUM"
    tags = ["idiom", "opt-in"]
    version_changed = "26.10.1"

    def matchyaml(self, file: Lintable) -> list[MatchError]:
        """Report the faults of this rule in a file."""
        if str(file.kind) not in KINDS:
            return []
        faults = check_yaml(file.content, variables=bool(VARIABLE_DIRS & set(Path(file.path).parts)))
        return [
            self.create_matcherror(message=fault.message, lineno=fault.line, tag=self.id, filename=file)
            for fault in faults
            if fault.rule == self.id
        ]
