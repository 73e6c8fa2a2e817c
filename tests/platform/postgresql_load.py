"""Runs on a host of the platform: writes rows through the pooler, and notes each that was acknowledged.

Reads its settings as JSON from standard input: connection (words of libpq), folder, writers. Each writer has numbers of
its own; one whose fate is unknown is not written again under the same number.
"""

import json
import os
import pathlib
import sys
import threading
import time

import psycopg

wanted = json.load(sys.stdin)
folder = pathlib.Path(wanted["folder"])


def stopped():
    return (folder / "stop").exists()


def write(writer):
    number = writer * 1_000_000
    with (folder / f"ledger-{writer}").open("w") as ledger:
        while not stopped():
            try:
                with psycopg.connect(**wanted["connection"], autocommit=True, prepare_threshold=None) as connection:
                    while not stopped():
                        number += 1
                        connection.execute("INSERT INTO ledger VALUES (%s)", (number,))
                        ledger.write(f"{number} {time.time()}\n")
                        ledger.flush()
                        os.fsync(ledger.fileno())
            except psycopg.Error:
                time.sleep(0.1)


threads = [threading.Thread(target=write, args=(writer,)) for writer in range(1, wanted["writers"] + 1)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
