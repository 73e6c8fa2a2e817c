"""A TCP probe that runs on a host under test: arguments are the address and the port."""

PROBE = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()
    print("open")
except TimeoutError:
    print("dropped")
except OSError as error:
    print(error.strerror)
"""
"""Prints `open`, `dropped` where no answer came, or the error."""
