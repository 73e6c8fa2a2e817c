"""Delay in user space for kernels without netem: packets that leave a link wait in a netfilter queue.

Uses nfnetlink_queue directly: bind a queue, record id and time of each packet, send the verdict after the delay. One
socket per namespace, one queue per link.
"""

from __future__ import annotations

import heapq
import socket
import struct
import threading
import time

from lab.machines import namespaces
from lab.machines.commands import run, succeeds

NETLINK_NETFILTER = 12
_QUEUE_PACKET = (3 << 8) | 0
_QUEUE_VERDICT = (3 << 8) | 1
_QUEUE_CONFIG = (3 << 8) | 2
_ATTR_CONFIG_COMMAND = 1
_ATTR_CONFIG_PARAMETERS = 2
_ATTR_CONFIG_LENGTH = 3
_ATTR_PACKET_HEADER = 1
_ATTR_VERDICT_HEADER = 2
_BIND = 1
_COPY_META = 1
_ACCEPT = 1
_REQUEST = 1
_QUEUE_LENGTH = 20000
CHAIN = "SLIPWAY_DELAY"


def message(kind: int, queue: int, attributes: list[tuple[int, bytes]]) -> bytes:
    """One netlink message of the queue subsystem."""
    body = struct.pack("=BBH", socket.AF_UNSPEC, 0, socket.htons(queue))
    for number, value in attributes:
        padding = -len(value) % 4
        body += struct.pack("=HH", 4 + len(value), number) + value + b"\0" * padding
    return struct.pack("=IHHII", 16 + len(body), kind, _REQUEST, 0, 0) + body


def packets(data: bytes) -> list[tuple[int, int]]:
    """(queue, packet id) of every packet in a message of the kernel."""
    found = []
    offset = 0
    while offset + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        if kind == _QUEUE_PACKET:
            queue = socket.ntohs(struct.unpack_from("=H", data, offset + 18)[0])
            position = offset + 20
            while position + 4 <= offset + length:
                size, number = struct.unpack_from("=HH", data, position)
                if number & 0x7FFF == _ATTR_PACKET_HEADER:
                    found.append((queue, struct.unpack_from(">I", data, position + 4)[0]))
                    break
                position += size + (-size % 4)
        if length < 16:
            break
        offset += length + (-length % 4)
    return found


class DelayQueue:
    """Delays packets that leave through links of one namespace."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._socket = namespaces.inside(namespace, _open)
        self._delays: dict[int, float] = {}
        self._waiting: list[tuple[float, int, int]] = []
        self._closing = False
        self._thread = threading.Thread(target=self._loop, name=f"delay-{namespace}", daemon=True)
        self._thread.start()

    def set(self, delays: dict[str, int]) -> None:
        """Link → milliseconds; other links are not delayed."""
        numbered = {int(link[1:]) % 65536: (link, milliseconds) for link, milliseconds in delays.items()}
        for queue in numbered:
            command = struct.pack(">BBH", _BIND, 0, 0)
            parameters = struct.pack(">IB", 0, _COPY_META)
            self._socket.send(message(_QUEUE_CONFIG, queue, [(_ATTR_CONFIG_COMMAND, command)]))
            self._socket.send(message(_QUEUE_CONFIG, queue, [(_ATTR_CONFIG_PARAMETERS, parameters)]))
            length = struct.pack(">I", _QUEUE_LENGTH)
            self._socket.send(message(_QUEUE_CONFIG, queue, [(_ATTR_CONFIG_LENGTH, length)]))
        self._delays = {queue: milliseconds / 1000 for queue, (_, milliseconds) in numbered.items()}
        for tool in ("iptables", "ip6tables"):
            rules = [
                f"-A {CHAIN} -o {link} -j NFQUEUE --queue-num {queue} --queue-bypass"
                for queue, (link, _) in numbered.items()
            ]
            text = "\n".join(["*mangle", f":{CHAIN} - [0:0]", f"-F {CHAIN}", *rules, "COMMIT", ""])
            inside = ["ip", "netns", "exec", self._namespace]
            run([*inside, f"{tool}-restore", "--noflush", "--wait"], stdin=text)
            hook = ["POSTROUTING", "--jump", CHAIN]
            if not succeeds([*inside, tool, "--wait", "--table", "mangle", "--check", *hook]):
                run([*inside, tool, "--wait", "--table", "mangle", "--append", *hook])

    def close(self) -> None:
        """Close the queues; the kernel accepts the packets of a queue without a reader (`--queue-bypass`)."""
        self._closing = True
        self._thread.join()
        self._socket.close()

    def _loop(self) -> None:
        while not self._closing:
            pause = 0.2
            if self._waiting:
                pause = min(pause, max(0.0005, self._waiting[0][0] - time.monotonic()))
            self._socket.settimeout(pause)
            try:
                data = self._socket.recv(1 << 18)
            except TimeoutError:
                data = b""
            except OSError:
                # The kernel's buffer overflowed (ENOBUFS): some packets passed without a delay.
                continue
            now = time.monotonic()
            for queue, number in packets(data):
                heapq.heappush(self._waiting, (now + self._delays.get(queue, 0.0), queue, number))
            while self._waiting and self._waiting[0][0] <= now:
                _, queue, number = heapq.heappop(self._waiting)
                verdict = struct.pack(">II", _ACCEPT, number)
                self._socket.send(message(_QUEUE_VERDICT, queue, [(_ATTR_VERDICT_HEADER, verdict)]))


def _open() -> socket.socket:
    queue = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    queue.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    queue.bind((0, 0))
    return queue
