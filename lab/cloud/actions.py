"""The engine behind the actions: it runs the jobs of the store in order and completes their actions.

Jobs that share a key run one after the other in the order of their ids; all others run in parallel. A job is removed
from the store only by the transaction that completes it, so an interrupted job is run again at the next start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from lab.cloud import specs, work
from lab.cloud.domain import actions
from lab.cloud.domain.objects import EVERYTHING, Action, ActionError, Job
from lab.cloud.domain.view import View
from lab.cloud.faults import Faults
from lab.cloud.store import Store
from lab.machines.base import Desired, MachineError, Machines

log = logging.getLogger("lab.cloud")

WORKERS = 16


def runnable(jobs: Iterable[Job]) -> Iterator[Job]:
    """The jobs, oldest first, that no earlier job blocks."""
    held: set[str] = set()
    shared: set[str] = set()
    for count, job in enumerate(jobs):
        if EVERYTHING in held:
            return
        is_blocked_by_any = EVERYTHING in job.keys and count > 0
        if not (is_blocked_by_any or held.intersection(job.keys + job.shared) or shared.intersection(job.keys)):
            yield job
        held.update(job.keys)
        shared.update(job.shared)


class Engine:
    def __init__(self, store: Store, machines: Machines, faults: Faults, issue: work.Issuer) -> None:
        self._store = store
        self._context = work.Context(store, machines, issue)
        self._machines = machines
        self._faults = faults
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="job")
        self._lock = Lock()
        self._pending: dict[int, Job] = {}
        self._running: set[int] = set()
        self._results: dict[int, Future[str | None]] = {}
        """Job id → future of the job's error, or of None after a success; only jobs that have not ended."""
        self._accepting = False
        store.committed = self._add
        self.reconciling = False
        self.problems: list[str] = []
        """Errors of jobs that have no action, newest last."""

    def start(self) -> None:
        """Reconcile the machines with the store, then resume the jobs of the previous run."""
        with self._store.transaction() as tx:
            jobs = tx.all(Job)
            wanted = specs.desired(View(tx))
        self._add(jobs)
        self.reconciling = True
        self._pool.submit(self._reconcile, wanted)

    def _reconcile(self, wanted: Desired) -> None:
        try:
            for change in self._machines.reconcile(wanted):
                log.info("reconciled: %s", change)
        except MachineError as error:
            self._record_problem(f"reconcile: {error}")
        except Exception as error:
            log.exception("reconcile failed")
            self._record_problem(f"reconcile: unexpected error: {error}")
        finally:
            self.reconciling = False
            with self._lock:
                self._accepting = True
            self._submit_runnable()

    def stop(self) -> None:
        """Wait for the running jobs and start no more; pending jobs remain in the store."""
        with self._lock:
            self._accepting = False
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _add(self, jobs: Iterable[Job]) -> None:
        with self._lock:
            for job in jobs:
                self._pending[job.id] = job
                self._results[job.id] = Future()
        self._submit_runnable()

    async def settle(self, jobs: Iterable[Job], seconds: float) -> list[str]:
        """Wait at most so long for the jobs; the errors of those that have no action."""
        with self._lock:
            known = [(job, result) for job in jobs if (result := self._results.get(job.id))]
        if not known:
            return []
        futures = [asyncio.wrap_future(result) for _, result in known]
        await asyncio.wait(futures, timeout=seconds)
        return [
            error
            for (job, _), future in zip(known, futures, strict=True)
            if job.action is None and future.done() and not future.cancelled() and (error := future.result())
        ]

    def _submit_runnable(self) -> None:
        """Start every job that no earlier job blocks."""
        with self._lock:
            if not self._accepting:
                return
            for job in runnable(self._pending.values()):
                if job.id not in self._running:
                    self._running.add(job.id)
                    self._pool.submit(self._run_and_log, job)

    def _run_and_log(self, job: Job) -> None:
        try:
            self._run(job)
        except Exception:
            # The result was not written: the job remains in the store and is run again at the next start.
            log.exception("the result of job %s (%s) was not stored", job.id, job.work)
            self._record_problem(f"{_describe(job)}: the result was not stored. Restart the daemon")

    def _run(self, job: Job) -> None:
        error: str | None = None
        entry = work.WORK[job.work]
        try:
            # A job that was removed meanwhile (reset, a failed creation) is not run.
            if command := self._command(job):
                self._faults.before_job(command)
                entry.run(self._context, job)
        except MachineError as reason:
            error = str(reason)
        except Exception as reason:
            log.exception("job %s failed", job.work)
            error = f"{job.work}: unexpected error: {reason}"
        with self._store.transaction() as tx:
            current = tx.get(Job, job.id)
            if current is not None:
                actions.finish(tx, job, ActionError("action_failed", error) if error else None)
                (entry.failed if error else entry.done)(tx, job)
            removed = {id for id in list(self._pending) if tx.get(Job, id) is None}
        if error and job.action is None:
            self._record_problem(f"{_describe(job)}: {error}")
        with self._lock:
            self._running.discard(job.id)
            ended = []
            # A job that is removed while it runs blocks others until it has ended.
            for id in removed - self._running:
                self._pending.pop(id, None)
                ended.append((id, self._results.pop(id, None)))
        for id, future in ended:
            if future is not None and not future.done():
                future.set_result(error if id == job.id else None)
        self._submit_runnable()

    def _command(self, job: Job) -> str | None:
        with self._store.transaction() as tx:
            if tx.get(Job, job.id) is None:
                return None
            action = tx.get(Action, job.action)
        return action.command if action else job.work

    def _record_problem(self, message: str) -> None:
        log.error("%s", message)
        self.problems = [*self.problems[-49:], message]


def _describe(job: Job) -> str:
    """The job for a log, without the password."""
    return f"{job.work} { {name: value for name, value in job.args.items() if name != 'password'} }"
