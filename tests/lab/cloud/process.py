"""The cloud as a separate process, for tests that kill it: `python -m tests.lab.cloud.process FOLDER`.

Prints its URL when it is ready, and after SIGTERM the differences between machines and store as JSON.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import uvicorn

from lab.cloud.app import create_app
from lab.cloud.store import Store
from lab.machines.stub import StubMachines
from lab.settings import Settings
from tests.lab.cloud.support import RATE_LIMIT, TOKEN, differences, listen


async def main(folder: Path) -> None:
    settings = Settings(name="test", slot=7, state_root=folder)
    machines = StubMachines(seconds=0.02)
    app = create_app(
        settings, Store(settings.database), machines, token=TOKEN, settle_seconds=0.01, rate_limit=RATE_LIMIT
    )
    machines.on_exit = app.state.cloud.on_exit
    listener = listen()
    # uvicorn raises the signal again once it has stopped; by then it must not end the process.
    signal.signal(signal.SIGTERM, lambda *_: None)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.005)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    await serving
    print(json.dumps(differences(app.state.cloud)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
