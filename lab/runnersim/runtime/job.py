"""One job from request to report: sources, artifacts of earlier jobs, script, after_script, artifacts."""

from __future__ import annotations

import os
import re
import shlex
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from . import executors
from .client import Client
from .config import RunnerConfig
from .executors import JobError
from .trace import SHORTEST_SECRET, Masker, Trace

REFERENCE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class Job:
    def __init__(
        self, runner: RunnerConfig, client: Client, body: Mapping[str, Any], builds: Path, slot: int, user: str
    ) -> None:
        self.runner, self.client, self.body, self.user = runner, client, body, user
        self.id, self.token = int(body["id"]), str(body["token"])
        project = body["job_info"].get("project_full_path") or body["job_info"]["project_name"]
        self.folder = builds / runner.short_token / str(slot) / project
        self.variables = expand({variable["key"]: variable for variable in body["variables"]})
        self.variables |= {
            "CI_PROJECT_DIR": str(self.folder),
            "CI_BUILDS_DIR": str(builds),
            "CI_CONCURRENT_ID": str(slot),
            "CI_JOB_TOKEN": self.token,
        }
        self.variables |= dict(text.split("=", 1) for text in runner.settings.get("environment", []))
        self.files = [variable["key"] for variable in body["variables"] if variable.get("file")]
        secrets = [self.token, runner.token]
        secrets += [
            self.variables[variable["key"]]
            for variable in body["variables"]
            if variable.get("masked") and len(self.variables[variable["key"]]) >= SHORTEST_SECRET
        ]
        prefixes = body.get("features", {}).get("token_mask_prefixes", [])
        limit = int(runner.settings.get("output_limit", 4096))
        self.trace = Trace(client, self.id, self.token, Masker(secrets, prefixes), limit)
        self.executor = executors.make(runner, user, self.folder, body)
        self._cancelled = ""
        self._timed_out = False

    def run(self, version: str) -> str:
        """Run the job and report it; returns its end: success or failed."""
        self.trace.on_status = self._end_by_server
        self.trace.start()
        self.trace.line(f"Running with gitlab-runner {version}")
        self.trace.line(f"  on {self.runner.name} {self.runner.short_token}")
        limit = threading.Timer(float(self.body["runner_info"]["timeout"]), self._end_by_timeout)
        limit.daemon = True
        limit.start()
        state, reason, code = "failed", "runner_system_failure", None
        try:
            code = self._steps()
            state, reason = ("success", "") if code == 0 else ("failed", "script_failure")
        except JobError as error:
            reason = error.reason
            self.trace.line(f"\x1b[31;1mERROR: Job failed: {error}\x1b[0;m")
        except OSError as error:
            self.trace.line(f"\x1b[31;1mERROR: Job failed (system failure): {error}\x1b[0;m")
        finally:
            limit.cancel()
            self.executor.clean_up()
        if self._cancelled == "runner":
            state, reason = "failed", "runner_system_failure"
        if self._timed_out:
            state, reason = "failed", "job_execution_timeout"
        self.trace.line("Job succeeded" if state == "success" else f"ERROR: Job failed: {reason}")
        self.trace.finish(state, reason, code)
        return state

    def abort(self) -> None:
        """End the job, because the runner ends."""
        self._cancelled = "runner"
        self.executor.stop(grace=5)

    def _end_by_server(self, status: str) -> None:
        if not self._cancelled:
            self._cancelled = status
            threading.Thread(target=self.executor.stop, daemon=True).start()

    def _end_by_timeout(self) -> None:
        self._timed_out = True
        self.trace.line(f"ERROR: Job timed out after {self.body['runner_info']['timeout']} seconds")
        threading.Thread(target=self.executor.stop, daemon=True).start()

    # Steps

    def _steps(self) -> int:
        with self._section("prepare_executor"):
            self.executor.prepare(self.trace)
        self._write_files()
        for section, script in (("get_sources", self._sources()), ("download_artifacts", self._downloads())):
            if script:
                with self._section(section):
                    if code := self.executor.run_on_host(self._exports() + script, self.trace):
                        raise JobError(f"{section}: exit status {code}")
        code = self._script("script", "step_script")
        self.executor.allow()
        if any(step["name"] == "after_script" for step in self.body["steps"]):
            status = "canceled" if self._cancelled else "success" if code == 0 else "failed"
            self.variables["CI_JOB_STATUS"] = status
            self._script("after_script", "after_script")
        self._upload(succeeded=code == 0 and not self._cancelled)
        return code

    def _script(self, name: str, section: str) -> int:
        step = next(step for step in self.body["steps"] if step["name"] == name)
        lines = [f"cd {shlex.quote(str(self.folder))}"]
        for command in step["script"]:
            shown = shlex.quote(f"\x1b[32;1m$ {command}\x1b[0;m")
            lines += [f"printf '%s\\n' {shown}", command]
        with self._section(section):
            return self.executor.run(self._exports() + "\n".join(lines), self.trace)

    def _section(self, name: str) -> Section:
        return Section(self.trace, name)

    def _exports(self) -> str:
        exports = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in self.variables.items())
        return (
            f"set -eo pipefail\nset +o noclobber\numask {'0000' if self.runner.executor == 'docker' else '0022'}\n"
            + exports
        )

    def _write_files(self) -> None:
        """Variables of type file: the variable holds the path."""
        folder = executors.temporary_dir(self.folder)
        for key in self.files:
            path = folder / key
            path.unlink(missing_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(self.variables[key])
            owner = folder.stat()
            os.chown(path, owner.st_uid, owner.st_gid)
            if self.runner.executor == "docker":
                path.chmod(0o644)
            self.variables[key] = str(path)

    def _sources(self) -> str:
        """The token is in git's environment, not in its arguments or in .git/config."""
        if self.variables.get("GIT_STRATEGY") == "none":
            return ""
        git = self.body["git_info"]
        url = urlsplit(git["repo_url"])
        plain = urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path, "", ""))
        credentials = f"{url.username or ''}:{url.password or ''}"
        folder = shlex.quote(str(self.folder))
        refspecs = " ".join(shlex.quote(spec) for spec in git["refspecs"])
        depth = f"--depth {git['depth']}" if git.get("depth") else ""
        return f"""
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=http.extraHeader GIT_TERMINAL_PROMPT=0
GIT_CONFIG_VALUE_0="Authorization: Basic $(printf %s {shlex.quote(credentials)} | base64 --wrap=0)"
export GIT_CONFIG_VALUE_0
git init --quiet {folder}
cd {folder}
rm -f .git/index.lock .git/shallow.lock .git/HEAD.lock
git remote add origin {shlex.quote(plain)} 2>/dev/null || git remote set-url origin {shlex.quote(plain)}
git fetch --quiet --prune --force {depth} origin {refspecs}
git -c advice.detachedHead=false checkout --force --quiet --detach {shlex.quote(git["sha"])}
git clean -ffdx --quiet
echo "Checking out {git["sha"][:8]} as detached HEAD (ref is {shlex.quote(git["ref"])})..."
"""

    def _helper(self, command: str, *words: str) -> str:
        arguments = " ".join(shlex.quote(word) for word in words)
        ca = self.runner.settings.get("tls-ca-file", "")
        return (
            f"cd {shlex.quote(str(self.folder))}\n"
            f"export RUNNER_URL={shlex.quote(self.runner.url)} RUNNER_CA_FILE={shlex.quote(ca)}\n"
            f"/usr/bin/python3 -I {shlex.quote(os.environ.get('GITLAB_RUNNER_PROGRAM', '/usr/bin/gitlab-runner'))}"
            f" {command} {arguments}\n"
        )

    def _downloads(self) -> str:
        lines = []
        for dependency in self.body.get("dependencies") or []:
            lines.append(f"export RUNNER_ARTIFACT_TOKEN={shlex.quote(dependency['token'])}")
            lines.append(self._helper("artifacts-downloader", str(dependency["id"])))
        return "\n".join(lines)

    def _upload(self, *, succeeded: bool) -> None:
        for artifact in self.body.get("artifacts") or []:
            when = artifact.get("when") or "on_success"
            if when != "always" and (when == "on_success") != succeeded:
                continue
            with self._section("upload_artifacts_on_" + ("success" if succeeded else "failure")):
                words = [str(self.id), artifact.get("name") or "artifacts", artifact.get("artifact_type") or "archive"]
                script = f"export RUNNER_ARTIFACT_TOKEN={shlex.quote(self.token)}\n" + self._helper(
                    "artifacts-uploader", *words, *artifact["paths"]
                )
                if self.executor.run_on_host(self._exports() + script, self.trace) and succeeded:
                    raise JobError("uploading artifacts failed")


class Section:
    """A part of the trace that GitLab folds."""

    def __init__(self, trace: Trace, name: str) -> None:
        self._trace, self._name = trace, name

    def __enter__(self) -> None:
        self._trace.write(f"section_start:{int(time.time())}:{self._name}\r\x1b[0K")

    def __exit__(self, *error: object) -> None:
        self._trace.write(f"section_end:{int(time.time())}:{self._name}\r\x1b[0K")


def expand(variables: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Values with references to other variables replaced; not in raw ones. Later definitions of a key win."""

    def value(key: str, seen: frozenset[str]) -> str:
        variable = variables[key]
        if variable.get("raw") or variable.get("file"):
            return str(variable["value"])
        return REFERENCE.sub(replacement(seen | {key}), str(variable["value"]))

    def replacement(seen: frozenset[str]) -> Callable[[re.Match[str]], str]:
        def replace(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            return value(name, seen) if name in variables and name not in seen else ""

        return replace

    return {key: value(key, frozenset()) for key in variables}
