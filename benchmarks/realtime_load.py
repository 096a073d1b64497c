"""A load of its own process: sends one request again and again over connections that it keeps, and prints what came.

Started by `realtime.py`; by hand: ``python benchmarks/realtime_load.py PORT PATH BODY.json CONNECTIONS SECONDS``. One
connection is a blocking socket, several are protocols of asyncio on uvloop: some 15 microseconds a request. With a
sixth word, seconds between two requests of a connection, it sends at that pace; an answer that is late is then counted
from the moment at which its request was due. Another status than 200 is an error.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from pathlib import Path

MOST_SECONDS = 300


def whole(data: bytes) -> int:
    """Give the length of the answer at the beginning of what was read; 0 where it is not complete."""
    head = data.find(b"\r\n\r\n") + 4
    if head < 4:
        return 0
    names = data[:head].lower()
    place = names.find(b"content-length:") + 15
    length = int(names[place : names.index(b"\r", place)]) if place >= 15 else 0
    return head + length if len(data) >= head + length else 0


def one_connection(port: int, request: bytes, seconds: float) -> tuple[list[float], int]:
    """Send, wait, send again."""
    taken, errors = [], 0
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < end:
            line.sendall(request)
            data = line.recv(65536)
            while not whole(data):
                data += line.recv(65536)
            taken.append(time.perf_counter() - begun)
            errors += data[9:12] != b"200"
    return taken, errors


class Line(asyncio.Protocol):
    """One of several connections."""

    def __init__(self, request: bytes, end: float, pace: float) -> None:
        self.request, self.end, self.pace = request, end, pace
        self.taken: list[float] = []
        self.errors, self.data, self.done = 0, b"", asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport, self.due = transport, time.perf_counter()
        transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Read an answer, and send the next request when it is due."""
        self.data += data
        if not whole(self.data):
            return
        now = time.perf_counter()
        self.taken.append(now - self.due)
        self.errors += self.data[9:12] != b"200"
        self.data = b""
        if now >= self.end:
            self.transport.close()
        elif self.pace:
            self.due += self.pace
            asyncio.get_running_loop().call_later(max(0.0, self.due - now), self.send)
        else:
            self.due = now
            self.transport.write(self.request)  # type: ignore[attr-defined]

    def send(self) -> None:
        """Send a request that is due."""
        self.transport.write(self.request)  # type: ignore[attr-defined]

    def connection_lost(self, error: Exception | None) -> None:
        """End; a connection that the server closed is an error."""
        self.errors += time.perf_counter() < self.end
        if not self.done.done():
            self.done.set_result(None)


async def several(port: int, request: bytes, count: int, seconds: float, pace: float) -> tuple[list[float], int]:
    """Keep several connections busy."""
    loop, end = asyncio.get_running_loop(), time.perf_counter() + seconds
    lines = [
        (await loop.create_connection(lambda: Line(request, end, pace), "127.0.0.1", port))[1] for _ in range(count)
    ]
    await asyncio.wait([line.done for line in lines], timeout=seconds + 30)
    late = sum(not line.done.done() for line in lines)
    return [one for line in lines for one in line.taken], late + sum(line.errors for line in lines)


def main() -> int:
    """Print what was measured as a line of JSON, times in milliseconds."""
    port, path, body = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]).read_bytes()
    count, seconds = int(sys.argv[4]), min(float(sys.argv[5]), MOST_SECONDS)
    pace = float(sys.argv[6]) if len(sys.argv) > 6 else 0.0
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    begun = time.perf_counter()
    if count == 1 and not pace:
        taken, errors = one_connection(port, request, seconds)
    else:
        import uvloop

        taken, errors = uvloop.run(several(port, request, count, seconds, pace))
    length = time.perf_counter() - begun
    taken.sort()
    shares = {name: taken[int(len(taken) * share)] * 1e3 for name, share in (("p50", 0.5), ("p99", 0.99))}
    print(json.dumps({**shares, "longest": taken[-1] * 1e3, "rate": len(taken) / length, "errors": errors}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
