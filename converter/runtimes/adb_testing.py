"""An Android device for tests: adb's wire protocol on the loopback, commands run here, in a folder of the test.

Speaks what the real client needs for `connect`, `devices`, `features`, `shell` (protocol version 2: standard input,
output and error apart, and the exit status) and `push`. A message is six little-endian words (command, two arguments,
length and checksum of the data, the command's complement) and the data; each write is answered before the next one.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_VERSION, _MOST = 0x01000001, 1 << 18
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)
_TOKEN = 1  # of AUTH: what the computer must sign


class _Gone(Exception):
    """The other end closed the connection."""


@dataclass
class FakeDevice:
    """A device that listens on the loopback; `serial` is what `adb connect` takes.

    Attributes:
      authorized: whether it trusts the computer.
      features: what it says it can do.
      commands: of the shell, in the order in which they came.
      before: called with each shell command before it runs; may call `drop`.
    """

    authorized: bool = True
    features: str = "shell_v2,cmd"
    environment: dict[str, str] = field(default_factory=dict)
    before: Callable[[str], None] = lambda command: None
    commands: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[_Connection] = []
        self.serial = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(_Connection(self, connection))

    def drop(self) -> None:
        """Breaks every connection, as a pulled cable does; new ones are taken."""
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def close(self) -> None:
        """Goes away."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept
        self._listener.close()
        self.drop()


class _Connection:
    def __init__(self, device: FakeDevice, connection: socket.socket) -> None:
        self.device, self._socket = device, connection
        self._lock = threading.Lock()
        self._services: dict[int, _Service] = {}
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        try:
            while True:
                command, first, second, size = struct.unpack("<4sIII", self._exactly(24)[:16])
                self._take(command, first, second, self._exactly(size))
        except (_Gone, OSError):
            self.close()

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self._socket.recv(count - len(data))
            if not part:
                raise _Gone
            data += part
        return data

    def _take(self, command: bytes, first: int, second: int, data: bytes) -> None:
        if command in (b"CNXN", b"AUTH"):
            if not self.device.authorized:
                return self.send(b"AUTH", _TOKEN, 0, os.urandom(20))
            banner = f"device::ro.product.name=fake;ro.product.model=Fake;features={self.device.features}"
            return self.send(b"CNXN", _VERSION, _MOST, banner.encode())
        if command == b"OPEN":
            name = data.rstrip(b"\0").decode()
            kind = _Sync if name.startswith("sync:") else _Shell
            self._services[first] = kind(self, first, name)
            return None
        service = self._services.get(first)
        if service is None:
            return None  # it has ended
        if command == b"WRTE":
            self.send(b"OKAY", second, first)
            service.incoming.put(data)
        elif command == b"OKAY":
            service.may_write.release()
        elif command == b"CLSE":
            self._services.pop(first).hang_up()
        return None

    def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        """Writes a message; what cannot be sent any more is dropped."""
        (word,) = struct.unpack("<I", command)
        head = struct.pack("<4sIIIII", command, first, second, len(data), sum(data) & 0xFFFFFFFF, word ^ 0xFFFFFFFF)
        with self._lock:
            try:
                self._socket.sendall(head + data)
            except OSError:
                self.close()

    def close(self) -> None:
        for service in list(self._services.values()):
            service.hang_up()
        self._services.clear()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class _Service:
    """One stream of a connection, with a thread of its own."""

    def __init__(self, connection: _Connection, stream: int, name: str) -> None:
        self.connection, self.stream, self.name = connection, stream, name
        self.incoming: queue.Queue[bytes | None] = queue.Queue()
        self.may_write = threading.Semaphore(1)
        self.gone = False
        connection.send(b"OKAY", stream, stream)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self.work()
        except _Gone:
            return
        self.connection.send(b"CLSE", self.stream, self.stream)

    def work(self) -> None:
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        """Sends data in pieces, each after the one before was taken; dropped once the connection has ended."""
        for start in range(0, len(data), _MOST // 2):
            self.may_write.acquire()
            if self.gone:
                self.may_write.release()
                return
            self.connection.send(b"WRTE", self.stream, self.stream, data[start : start + _MOST // 2])

    def chunks(self) -> bytes:
        """What came next; raises _Gone at the end."""
        data = self.incoming.get()
        if data is None:
            raise _Gone
        return data

    def exactly(self, count: int, buffer: bytearray) -> bytes:
        while len(buffer) < count:
            buffer += self.chunks()
        taken, buffer[:count] = bytes(buffer[:count]), b""
        return taken

    def hang_up(self) -> None:
        self.gone = True
        self.incoming.put(None)
        self.may_write.release()


class _Shell(_Service):
    """`shell,v2,raw:COMMAND`, run by this machine's shell in a process group of its own."""

    def work(self) -> None:
        command = self.name.partition(":")[2]
        device = self.connection.device
        device.commands.append(command)
        device.before(command)
        environment = {**os.environ, **device.environment}
        self.process = subprocess.Popen(
            ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, env=environment,
        )  # fmt: skip
        readers = [
            threading.Thread(target=self._forward, args=(kind, stream), daemon=True)
            for kind, stream in ((_STDOUT, self.process.stdout), (_STDERR, self.process.stderr))
        ]
        for thread in readers:
            thread.start()
        threading.Thread(target=self._feed, daemon=True).start()
        for thread in readers:
            thread.join()
        status = self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            stream.close()  # type: ignore[union-attr]
        self._packet(_EXIT, bytes([status & 0xFF]))

    def _packet(self, kind: int, data: bytes) -> None:
        self.write(struct.pack("<BI", kind, len(data)) + data)

    def _forward(self, kind: int, stream: object) -> None:
        while data := os.read(stream.fileno(), 1 << 16):  # type: ignore[attr-defined]
            self._packet(kind, data)

    def _feed(self) -> None:
        assert self.process.stdin is not None
        buffer = bytearray()
        try:
            while True:
                kind, size = struct.unpack("<BI", self.exactly(5, buffer))
                data = self.exactly(size, buffer)
                if kind == _STDIN:
                    self.process.stdin.write(data)
                    self.process.stdin.flush()
                elif kind == _CLOSE_STDIN:
                    self.process.stdin.close()
        except (OSError, ValueError):  # the command has stopped reading
            pass
        except _Gone:  # as the device's adbd does to the shell of a connection that ended
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGHUP)
        with contextlib.suppress(OSError):
            self.process.stdin.close()


class _Sync(_Service):
    """`sync:`, for one `adb push`."""

    def work(self) -> None:
        buffer = bytearray()
        target: Path | None = None
        while True:
            request, size = struct.unpack("<4sI", self.exactly(8, buffer))
            if request in (b"DATA", b"SEND", b"STAT"):
                data = self.exactly(size, buffer)
            if request == b"STAT":
                self.write(struct.pack("<4sIII", b"STAT", 0, 0, 0))
            elif request == b"SEND":
                target = Path(data.decode().rpartition(",")[0])
                if not target.parent.is_dir():
                    self._fail("No such file or directory")
                    target = None
            elif request == b"DATA" and target is not None:
                with target.open("ab") as file:
                    file.write(data)
            elif request == b"DONE" and target is not None:
                self.write(struct.pack("<4sI", b"OKAY", 0))
            elif request == b"QUIT":
                return

    def _fail(self, message: str) -> None:
        self.write(struct.pack("<4sI", b"FAIL", len(message)) + message.encode())
