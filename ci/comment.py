"""Write a summary to the merge request of the job, in place of the one that an earlier pipeline wrote.

python -m ci.comment artifacts/ci/dry-run-stage.md
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ci.gitlab import GitlabError, Project

NOTES_PER_PAGE = 100


def write_comment(path: Path, environment: Mapping[str, str]) -> str:
    """Returns what was done."""
    request = environment.get("CI_MERGE_REQUEST_IID")
    if not request:
        return f"{path}: this pipeline has no merge request to comment on"
    project = Project(environment)
    marker = f"<!-- slipway {path.stem} -->"
    body = f"{marker}\n{path.read_text(encoding='utf-8')}"
    notes = f"merge_requests/{request}/notes"
    page = 1
    while found := project.call("GET", f"{notes}?per_page={NOTES_PER_PAGE}&page={page}"):
        for note in found:
            if str(note["body"]).startswith(marker):
                project.call("PUT", f"{notes}/{note['id']}", body=body)
                return f"merge request {request}: comment {note['id']} replaced"
        page += 1
    created = project.call("POST", notes, body=body)
    return f"merge request {request}: comment {created['id']} written"


def main(arguments: Sequence[str]) -> int:
    [path] = arguments
    try:
        print(write_comment(Path(path), os.environ))
    except (GitlabError, OSError) as error:
        print(f"{path}: no comment was written. {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
