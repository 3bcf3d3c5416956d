"""JSON messages between a run and its workers: one a line over TCP, nothing is ever unpickled."""

from __future__ import annotations

import hmac
import json
import secrets
import socket
import threading
from contextlib import suppress
from typing import Any

Message = dict[str, Any]

_HANDSHAKE_SECONDS = 20.0
_LONGEST_HELLO = 4096
_LONGEST = 1 << 28


class Wire:
    """One end of a connection; any thread may send, one receives.

    Args:
        connection: a connected socket. Until :meth:`trust` or :meth:`prove` it is given little
            time and short messages.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(_HANDSHAKE_SECONDS)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._socket = connection
        self._stream = connection.makefile("rb")
        self._sending = threading.Lock()
        self._longest = _LONGEST_HELLO

    def send(self, message: Message) -> None:
        """Send a message; raises OSError where the other end is gone."""
        data = json.dumps(message, allow_nan=False).encode() + b"\n"
        with self._sending:
            self._socket.sendall(data)

    def receive(self) -> Message | None:
        """The next message; ``None`` where the other end is gone or was silent for too long."""
        try:
            line = self._stream.readline(self._longest)
            message = json.loads(line) if line.endswith(b"\n") else None
        except (OSError, ValueError, RecursionError):
            return None
        return message if isinstance(message, dict) else None

    def close(self) -> None:
        """End the connection; whoever waits on it wakes up."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def trust(self, secret: str, *, patience: float) -> bool:
        """Whether the other end knows ``secret``, which it shows by :meth:`prove`.

        From then on it may be silent for ``patience`` seconds.
        """
        nonce = secrets.token_hex(32)
        self.send({"nonce": nonce})
        answer = self.receive() or {}
        if not hmac.compare_digest(str(answer.get("proof")), _proof(secret, nonce)):
            return False
        self._trusted(patience)
        return True

    def prove(self, secret: str) -> None:
        """Answer to :meth:`trust`; from then on the other end may be silent."""
        challenge = self.receive() or {}
        self.send({"proof": _proof(secret, str(challenge.get("nonce")))})
        self._trusted(None)

    def _trusted(self, patience: float | None) -> None:
        self._socket.settimeout(patience)
        self._longest = _LONGEST


def _proof(secret: str, nonce: str) -> str:
    return hmac.new(secret.encode(), nonce.encode(), "sha256").hexdigest()
