"""Runs on a host of the platform: writes rows through the pooler and notes each that was acknowledged, with the moment.

Reads its settings as JSON from standard input: connection (words of libpq), ledger and stop (paths). Rows are numbered;
one whose fate is unknown is not written again under the same number.
"""

import json
import os
import pathlib
import sys
import time

import psycopg

wanted = json.load(sys.stdin)
number = 0
with pathlib.Path(wanted["ledger"]).open("w") as ledger:
    while not pathlib.Path(wanted["stop"]).exists():
        try:
            with psycopg.connect(**wanted["connection"], autocommit=True, prepare_threshold=None) as connection:
                while not pathlib.Path(wanted["stop"]).exists():
                    number += 1
                    connection.execute("INSERT INTO ledger VALUES (%s)", (number,))
                    ledger.write(f"{number} {time.time()}\n")
                    ledger.flush()
                    os.fsync(ledger.fileno())
        except psycopg.Error as error:
            print(time.time(), error, file=sys.stderr, flush=True)
            time.sleep(0.1)
