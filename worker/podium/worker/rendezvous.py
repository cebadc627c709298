"""Where the machines of an attempt meet: two ports of the first one, and a token without which nobody is let in.

The first machine writes the invitation into the ledger, where the others find it. The token is in no argument, no
variable and no event. What is said afterwards is not encrypted, and torch's own traffic between ranks has neither token
nor encryption: machines of a pool belong on a private network.
"""

import hmac
import json
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from types import TracebackType

#: How long somebody at the door has to show the token, in seconds, and with how many bytes.
_PATIENCE, _MOST_BYTES = 5.0, 200
#: How long a machine may take to answer a call, in seconds.
_ANSWER = 10.0


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """How the other machines reach the first one."""

    address: str
    line: int
    """The port of the lines to the attempt."""
    store: int
    """The port of the store where the ranks find one another."""
    token: str = field(repr=False)

    def __str__(self) -> str:
        """The text that `parse` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> "Invitation":
        """What `str` wrote.

        Raises:
            ValueError: the text is none.
        """
        with suppress(ValueError):
            match json.loads(text):
                case {"address": str(address), "line": int(line), "store": int(store), "token": str(token)}:
                    return cls(address=address, line=line, store=store, token=token)
        raise ValueError("what the ledger has is no invitation; it is not repeated here, as a token may be in it")

    def call(self) -> socket.socket:
        """A connection to the attempt, let in.

        Raises:
            OSError: nobody listens there any more.
        """
        connection = socket.create_connection((self.address, self.line), timeout=_ANSWER)
        connection.settimeout(None)
        _be_quick(connection)
        connection.sendall(self.token.encode() + b"\n")
        return connection


class Rendezvous:
    """The first machine's side: listens on two free ports of an address.

    Args:
        address: of this machine, where the others reach it.

    Raises:
        OSError: it is none of this machine's.
    """

    def __init__(self, address: str) -> None:
        self.door = _listening(address)
        try:
            self.store = _listening(address)
        except OSError:
            self.door.close()
            raise
        self.invitation = Invitation(
            address=address,
            line=self.door.getsockname()[1],
            store=self.store.getsockname()[1],
            token=secrets.token_urlsafe(32),
        )

    def admits(self, connection: socket.socket) -> bool:
        """Whether the one who has called shows the token, and without delay. Nothing beyond it is read."""
        # In all: who says a byte now and then would keep the attempt from ending.
        end, shown = time.monotonic() + _PATIENCE, b""
        with suppress(OSError):
            while len(shown) < _MOST_BYTES and not shown.endswith(b"\n"):
                connection.settimeout(max(end - time.monotonic(), 0.0))
                if not (byte := connection.recv(1)):
                    break
                shown += byte
            connection.settimeout(None)
            _be_quick(connection)
        return hmac.compare_digest(shown, self.invitation.token.encode() + b"\n")

    def __enter__(self) -> "Rendezvous":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.door.close()
        self.store.close()


def _listening(address: str) -> socket.socket:
    family = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)[0][0]
    return socket.create_server((address, 0), family=family)


def _be_quick(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
