"""A project in lab.gitlab, as a person works with it: a clone, pushes, and the pipelines of its commits."""

from __future__ import annotations

import json
import subprocess
import zipfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from lab.gitlab.engine import Engine, Run
from lab.gitlab.store import Job, State, Store
from tests.support.deadlines import until


class Project(ABC):
    def __init__(self, clone: Path, store: Store, engine: Engine) -> None:
        self.clone, self.store, self.engine = clone, store, engine

    @abstractmethod
    def start(self) -> Run:
        """Push the commit that is checked out, and create its pipeline."""

    def write(self, name: str, text: str) -> None:
        path = self.clone / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
        return subprocess.run(
            ["git", "-C", str(self.clone), *identity, *arguments], check=True, capture_output=True, text=True
        ).stdout

    def commit(self, message: str) -> Run:
        """Commit all changes, push them, and start the pipeline."""
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.start()

    def jobs(self, run: Run) -> dict[str, Job]:
        return self.engine.jobs(run)

    def job(self, run: Run, name: str) -> Job:
        return self.jobs(run)[name]

    def states(self, run: Run) -> dict[str, State]:
        return {name: job.state for name, job in self.jobs(run).items()}

    def wait(self, run: Run, *status: str, seconds: float = 180) -> str:
        """Until the pipeline has one of these results; returns it."""

        def advanced() -> str:
            self.engine.advance()
            return self.engine.status(run)

        return until(advanced, seconds, lambda found: found in status, pause=0.2)

    def trace(self, run: Run, name: str) -> str:
        return self.store.trace(self.job(run, name).id).decode(errors="replace")

    def explain(self, run: Run) -> str:
        failed = [job.name for job in self.jobs(run).values() if job.state in (State.FAILED, State.CANCELED)]
        return "\n".join(f"{name}: {self.trace(run, name)[-3000:]}" for name in failed)

    def report(self, run: Run, job: str, name: str = "") -> dict[str, Any]:
        """The report of a playbook, from the artifacts of its job; `name` where it is not the job's."""
        path = self.store.artifact(self.job(run, job).id)
        assert path is not None, job
        with zipfile.ZipFile(path) as archive:
            return dict(json.loads(archive.read(f"artifacts/ci/{name or job}.json")))
