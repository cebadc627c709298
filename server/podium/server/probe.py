"""Is a server serving? `python -m podium.server.probe ADDRESS` exits 0 when it is, and says what it does instead.

For container health checks. What it prints is serving, starting, draining or ledger-lost, or why nobody answers.

A server with TLS is asked over TLS where PODIUM_TLS_CA names the authority of its certificate, and
PODIUM_TLS_SERVER_NAME the name in it, where that is not the address; one that asks for a certificate is shown
PODIUM_TLS_CLIENT_CERT with PODIUM_TLS_CLIENT_KEY.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import grpc

#: In the trailing metadata of an answer of the health service: how the server is, in a word.
STATE_KEY = "podium-state"


def main(address: str) -> int:
    """Asks the health service once, for at most 3 seconds; 0 means SERVING."""
    # Read when gRPC is imported: of a handshake that fails it would write a line beside ours.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    try:
        channel = _channel(address)
    except OSError as error:
        sys.stderr.write(f"{address}: {error}\n")
        return 1
    with channel:
        try:
            health: Any = health_pb2_grpc.HealthStub(channel)  # its stubs know no methods
            answer, call = health.Check.with_call(health_pb2.HealthCheckRequest(), timeout=3)
        except grpc.RpcError as error:
            said: Any = error  # a call, too
            sys.stderr.write(f"{address}: {said.details()}\n")
            return 1
    serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    told = dict(call.trailing_metadata()).get(STATE_KEY)
    sys.stdout.write(f"{told or ('serving' if serving else 'not serving')}\n")
    return 0 if serving else 1


def _channel(address: str) -> "grpc.Channel":
    import grpc

    ca, cert, key = (_content(name) for name in ("PODIUM_TLS_CA", "PODIUM_TLS_CLIENT_CERT", "PODIUM_TLS_CLIENT_KEY"))
    # A server is probed from where it is, by no proxy of the environment.
    options: list[tuple[str, int | str]] = [("grpc.enable_http_proxy", 0)]
    if ca is None:
        return grpc.insecure_channel(address, options=options)
    if name := os.environ.get("PODIUM_TLS_SERVER_NAME", ""):
        options.append(("grpc.ssl_target_name_override", name))
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(ca, key, cert), options=options)


def _content(variable: str) -> bytes | None:
    path = os.environ.get(variable, "")
    return Path(path).read_bytes() if path else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]) if len(sys.argv) == 2 else "usage: python -m podium.server.probe HOST:PORT")
