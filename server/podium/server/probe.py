"""Is a server serving? `python -m podium.server.probe ADDRESS` exits 0 when it is: for container health checks.

A server with TLS is asked over TLS where PODIUM_TLS_CA names the authority of its certificate, and
PODIUM_TLS_SERVER_NAME the name in it, where that is not the address; one that asks for a certificate is shown
PODIUM_TLS_CLIENT_CERT with PODIUM_TLS_CLIENT_KEY.
"""

import os
import sys
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def main(address: str) -> int:
    """Asks the health service once, for at most 3 seconds; 0 means SERVING."""
    try:
        channel = _channel(address)
    except OSError as error:
        sys.stderr.write(f"{address}: {error}\n")
        return 1
    with channel:
        try:
            health: Any = health_pb2_grpc.HealthStub(channel)  # its stubs know no methods
            answer = health.Check(health_pb2.HealthCheckRequest(), timeout=3)
        except grpc.RpcError as error:
            sys.stderr.write(f"{address}: {error}\n")
            return 1
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1


def _channel(address: str) -> grpc.Channel:
    ca, cert, key = (_content(name) for name in ("PODIUM_TLS_CA", "PODIUM_TLS_CLIENT_CERT", "PODIUM_TLS_CLIENT_KEY"))
    if ca is None:
        return grpc.insecure_channel(address)
    name = os.environ.get("PODIUM_TLS_SERVER_NAME", "")
    options = [("grpc.ssl_target_name_override", name)] if name else []
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(ca, key, cert), options=options)


def _content(variable: str) -> bytes | None:
    path = os.environ.get(variable, "")
    return Path(path).read_bytes() if path else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
