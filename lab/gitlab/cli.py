"""`lab gitlab`: queue jobs in the lab's GitLab and show them. It opens the store itself, beside the daemon."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.settings import Settings

if TYPE_CHECKING:
    from lab.gitlab.engine import Engine
    from lab.gitlab.store import Job, Store, Variable

app = typer.Typer(help="Queue jobs in the lab's GitLab, a simulation, and show them.", no_args_is_help=True)
POLL_SECONDS = 0.5


@contextmanager
def _store() -> Iterator[Store]:
    from lab.gitlab.service import open_store
    from lab.gitlab.store import GitlabError

    settings = Settings.from_environment()
    if not settings.gitlab_dir.exists():
        print(f"lab: Lab {settings.name!r}: has no GitLab yet. Create it with: lab up", file=sys.stderr)
        raise typer.Exit(1)
    store = open_store(settings)
    try:
        yield store
    except GitlabError as error:
        print(f"lab: {error}.", file=sys.stderr)
        raise typer.Exit(1) from None
    finally:
        store.close()


def _variables(texts: list[str] | None, *, masked: bool = False, file: bool = False) -> list[Variable]:
    """KEY=VALUE; of a file variable KEY=PATH, whose content is stored."""
    from lab.gitlab.store import Variable

    found = []
    for text in texts or []:
        key, _, value = text.partition("=")
        content = Path(value).read_text(encoding="utf-8") if file else value
        found.append(Variable(key, content, masked=masked, file=file, raw=masked or file))
    return found


@contextmanager
def _engine() -> Iterator[Engine]:
    from lab.gitlab.engine import Engine

    with _store() as store:
        yield Engine(store)


JobId = Annotated[int, typer.Argument(help="Number of a job.")]


@app.command()
def queue(
    script: Annotated[list[str], typer.Argument(help="Commands, one an argument.")],
    name: Annotated[str, typer.Option(help="Name of the job.")] = "manual",
    tag: Annotated[list[str] | None, typer.Option(help="Tag that the runner must have; repeatable.")] = None,
    image: Annotated[str, typer.Option(help="Image, for runners with containers.")] = "",
    protected: Annotated[bool, typer.Option("--protected", help="Run on a protected branch.")] = False,
    masked: Annotated[list[str] | None, typer.Option(help="KEY=VALUE of a masked variable; repeatable.")] = None,
    timeout: Annotated[int, typer.Option(help="Seconds until the job fails.", min=1)] = 3600,
    wait: Annotated[bool, typer.Option("--wait", help="Print the trace until the job ends.")] = False,
) -> None:
    """Queue one job outside of any pipeline."""
    from lab.gitlab.service import PROJECT
    from lab.gitlab.store import Job

    variables = _variables(masked, masked=True)
    with _store() as store:
        job = store.queue(
            Job(
                name=name,
                script=tuple(script),
                project=PROJECT,
                tags=tuple(tag or []),
                image=image,
                ref_protected=protected,
                variables=tuple(variables),
                timeout_seconds=timeout,
            )
        )
        print(job.id, flush=True)
        if wait:
            raise typer.Exit(_follow(store, job))


def _follow(store: Store, job: Job) -> int:
    """Print the trace as it grows; exit code 0 if the job succeeds."""
    from lab.gitlab.store import FINAL, State

    printed = 0
    while True:
        ended = store.job(job.id).state in FINAL
        trace = store.trace(job.id)
        sys.stdout.write(trace[printed:].decode(errors="replace"))
        sys.stdout.flush()
        printed = len(trace)
        if ended:
            return 0 if store.job(job.id).state == State.SUCCESS else 1
        time.sleep(POLL_SECONDS)


@app.command()
def jobs() -> None:
    """List the jobs, the newest last."""
    with _store() as store:
        for job in store.jobs():
            reason = f" ({job.failure_reason})" if job.failure_reason else ""
            print(f"{job.id}\t{job.state}{reason}\t{job.stage}\t{job.name}\trunner {job.runner_id or '-'}")


@app.command()
def trace(id: JobId) -> None:
    """Print the trace of a job."""
    with _store() as store:
        sys.stdout.write(store.trace(id).decode(errors="replace"))


@app.command()
def cancel(id: JobId) -> None:
    """Cancel a job."""
    from lab.gitlab.store import FINAL

    with _store() as store:
        job = store.cancel(id)
        print(job.state if job.state in FINAL else "canceling")


@app.command()
def runners() -> None:
    """List the runners with the last contact of each."""
    with _store() as store:
        for runner in store.runners():
            managers = store.managers(runner.id)
            contact = max((manager.contacted_at for manager in managers), default=0.0)
            seen = f"{store.now() - contact:.0f} s ago" if contact else "never"
            tags = ",".join(runner.tags) or "-"
            print(f"{runner.id}\t{runner.description}\t{tags}\t{runner.access_level}\tcontact {seen}")


@app.command()
def push(
    repository: Annotated[Path, typer.Argument(help="Clone whose commit is pushed.")] = Path(),
    branch: Annotated[str, typer.Option(help="Branch; main is the default branch, and protected.")] = "main",
    schedule: Annotated[str, typer.Option(help="SLIPWAY_SCHEDULE of a scheduled pipeline.")] = "",
    variable: Annotated[list[str] | None, typer.Option(help="KEY=VALUE of the project; repeatable.")] = None,
    masked: Annotated[list[str] | None, typer.Option(help="KEY=VALUE of a masked variable; repeatable.")] = None,
    file: Annotated[list[str] | None, typer.Option(help="KEY=PATH of a file variable; repeatable.")] = None,
) -> None:
    """Push the commit that is checked out, and start the pipeline of its .gitlab-ci.yml."""
    from lab.gitlab import deployer, service
    from lab.gitlab.documents import PipelineError
    from lab.gitlab.repository import RepositoryError

    settings = Settings.from_environment()
    given = [*_variables(variable), *_variables(masked, masked=True), *_variables(file, file=True)]
    given += _variables([f"SLIPWAY_SCHEDULE={schedule}"] if schedule else [])
    variables = [*deployer.variables(settings), *given]
    trigger = "schedule" if schedule else "push"
    with _store() as store:
        try:
            run = service.push(settings, store, repository, branch, trigger=trigger, variables=variables)
        except (PipelineError, RepositoryError) as error:
            print(f"lab: {error}", file=sys.stderr)
            raise typer.Exit(1) from None
    print(run.id)


@app.command()
def prepare() -> None:
    """Give the runner's host what deploy jobs need: Python's environment, and the files that inventories/lab reads."""
    from lab.gitlab import deployer
    from lab.gitlab.store import GitlabError

    try:
        deployer.prepare(Settings.from_environment())
    except (GitlabError, OSError) as error:
        print(f"lab: {error}.", file=sys.stderr)
        raise typer.Exit(1) from None


@app.command()
def pipelines() -> None:
    """List the pipelines, the newest last."""
    with _engine() as engine:
        for run in engine.runs():
            print(f"{run.id}\t{engine.status(run)}\t{run.source}\t{run.ref}\t{run.sha[:8]}")


@app.command()
def play(id: JobId) -> None:
    """Start a manual job."""
    with _engine() as engine:
        print(engine.play(id).state)


@app.command()
def retry(id: JobId) -> None:
    """Run a job again, and those that were skipped because of it."""
    with _engine() as engine:
        print(engine.retry(id).id)


@app.command()
def stop(id: Annotated[int, typer.Argument(help="Number of a pipeline.")]) -> None:
    """Cancel a pipeline."""
    with _engine() as engine:
        engine.cancel(id)
