"""The engine behind the actions: it does the jobs in the store, in order, and says when they are over.

Jobs that share a key run one after the other in the order of their ids; all others run at the same time. A job leaves
the store only in the transaction that ends it, so whatever a kill interrupted is done again at the next start.
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


def free(jobs: Iterable[Job]) -> Iterator[Job]:
    """Those of the jobs, oldest first, that no earlier one stands in the way of."""
    held: set[str] = set()
    shared: set[str] = set()
    for count, job in enumerate(jobs):
        if EVERYTHING in held:
            return
        alone = EVERYTHING in job.keys and count > 0
        if not (alone or held.intersection(job.keys + job.shared) or shared.intersection(job.keys)):
            yield job
        held.update(job.keys)
        shared.update(job.shared)


class Engine:
    def __init__(self, store: Store, machines: Machines, faults: Faults) -> None:
        self._store = store
        self._hands = work.Hands(store, machines)
        self._machines = machines
        self._faults = faults
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="job")
        self._lock = Lock()
        self._pending: dict[int, Job] = {}
        self._running: set[int] = set()
        self._over: dict[int, Future[str | None]] = {}
        """Of each job that is not over: a future of what went wrong, or None."""
        self._open = False
        store.committed = self._add
        self.reconciling = False
        self.problems: list[str] = []
        """What went wrong without an action to tell it, newest last."""

    def start(self) -> None:
        """Bring the machines in line with the store, then go on with the jobs of before."""
        with self._store.transaction() as tx:
            jobs = tx.all(Job)
            wanted = specs.desired(View(tx))
        self._add(jobs)
        self.reconciling = True
        self._pool.submit(self._reconcile, wanted)

    def _reconcile(self, wanted: Desired) -> None:
        try:
            for sentence in self._machines.reconcile(wanted):
                log.info("reconciled: %s", sentence)
        except MachineError as error:
            self._problem(f"reconcile: {error}")
        except Exception as error:
            log.exception("the reconciliation broke")
            self._problem(f"the reconciliation broke: {error}")
        finally:
            self.reconciling = False
            with self._lock:
                self._open = True
            self._pump()

    def stop(self) -> None:
        """Take up no more jobs and let the running ones end. The rest waits in the store."""
        with self._lock:
            self._open = False
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _add(self, jobs: Iterable[Job]) -> None:
        with self._lock:
            for job in jobs:
                self._pending[job.id] = job
                self._over[job.id] = Future()
        self._pump()

    async def settle(self, jobs: Iterable[Job], seconds: float) -> list[str]:
        """Give jobs this long to get over; what went wrong among those without an action."""
        with self._lock:
            known = [(job, over) for job in jobs if (over := self._over.get(job.id))]
        if not known:
            return []
        futures = [asyncio.wrap_future(over) for _, over in known]
        await asyncio.wait(futures, timeout=seconds)
        return [
            error
            for (job, _), future in zip(known, futures, strict=True)
            if job.action is None and future.done() and not future.cancelled() and (error := future.result())
        ]

    def _pump(self) -> None:
        """Start every job that no earlier one stands in the way of."""
        with self._lock:
            if not self._open:
                return
            for job in free(self._pending.values()):
                if job.id not in self._running:
                    self._running.add(job.id)
                    self._pool.submit(self._guarded, job)

    def _guarded(self, job: Job) -> None:
        try:
            self._do(job)
        except Exception:
            # Its end could not be written: it stays in the store and is done again at the next start.
            log.exception("the end of job %s (%s) is lost", job.id, job.work)
            self._problem(f"{_told(job)}: its end could not be kept; restart the daemon")

    def _do(self, job: Job) -> None:
        error: str | None = None
        doing = work.WORK[job.work]
        try:
            # A job that was forgotten meanwhile (reset, a failed creation) is not done.
            if command := self._command(job):
                self._faults.before_job(command)
                doing.run(self._hands, job)
        except MachineError as reason:
            error = str(reason)
        except Exception as reason:
            log.exception("job %s broke", job.work)
            error = f"{job.work} broke: {reason}"
        with self._store.transaction() as tx:
            current = tx.get(Job, job.id)
            if current is not None:
                actions.finish(tx, job, ActionError("action_failed", error) if error else None)
                (doing.failed if error else doing.done)(tx, job)
            forgotten = {id for id in list(self._pending) if tx.get(Job, id) is None}
        if error and job.action is None:
            self._problem(f"{_told(job)}: {error}")
        with self._lock:
            self._running.discard(job.id)
            over = []
            # What was forgotten while it runs stands in the way of others until it is through.
            for id in forgotten - self._running:
                self._pending.pop(id, None)
                over.append((id, self._over.pop(id, None)))
        for id, future in over:
            if future is not None and not future.done():
                future.set_result(error if id == job.id else None)
        self._pump()

    def _command(self, job: Job) -> str | None:
        with self._store.transaction() as tx:
            if tx.get(Job, job.id) is None:
                return None
            action = tx.get(Action, job.action)
        return action.command if action else job.work

    def _problem(self, sentence: str) -> None:
        log.error("%s", sentence)
        self.problems = [*self.problems[-49:], sentence]


def _told(job: Job) -> str:
    """A job as a log may show it."""
    return f"{job.work} { {name: value for name, value in job.args.items() if name != 'password'} }"
