"""The gRPC channel that every client uses: what is tried again, and how a dead connection is found out."""

import json
import ssl
from pathlib import Path

import grpc

from podium.client._tls import Tls
from podium.client._token import is_loopback

#: Every unary call but those of ONCE is safe to repeat: reading changes nothing, asking twice for a state (to pause,
#: resume, change, cancel, drain) is asking once, and CreateJob carries a request id.
#:
#: Streams are not gRPC's to repeat: `_watch` and `_download` do it. With a retry policy of theirs, some of those that
#: were opened just as the server died waited for ever (seen with grpcio 1.85).
STREAMS = {
    "podium.api.v1.JobService": ("WatchJob", "WatchJobs"),
    "podium.api.v1.LogService": ("ReadLogs",),
    "podium.api.v1.CheckpointService": ("ReadCheckpoint",),
}
#: These would leave a second token behind, or drop the secret that the first try put in the former one's place.
ONCE = {"podium.api.v1.TokenService": ("CreateToken", "RotateToken")}
SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [
                {"service": service, "method": method}
                for service, methods in (STREAMS | ONCE).items()
                for method in methods
            ]
        },
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.2s",
                "maxBackoff": "5s",
                "backoffMultiplier": 2,
                # A server that stops has gRPC say CANCELLED of calls that it had not begun (grpc/grpc#41785).
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        },
    ],
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
}

_OPTIONS = (
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.enable_retries", 1),
    # A server refuses clients that ping more often than it allows; ours allows every 20 s.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC's own pause grows to two minutes; a restarted server should be found at once.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # The metrics of a long job, all series at once, are more than the usual 4 MiB.
    ("grpc.max_receive_message_length", 32 << 20),
)


def open_channel(target: str, tls: Tls | None = None) -> grpc.Channel:
    """A channel to `target`, such as "127.0.0.1:50051"; connects when it is first used.

    Raises:
        ValueError: a file of `tls` cannot be read; names it.
    """
    options: list[tuple[str, int | str]] = [*_OPTIONS]
    if is_loopback(target):
        # gRPC takes http_proxy's proxy also to this machine, and with it whatever we say in the clear, as a token.
        options.append(("grpc.enable_http_proxy", 0))
    if tls is None:
        return grpc.insecure_channel(target, options=options)
    if tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return grpc.secure_channel(target, _credentials(tls), options=options)


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    roots = _read(tls.ca) if tls.ca is not None else _system_roots()
    if tls.cert is None or tls.key is None:
        return grpc.ssl_channel_credentials(roots)
    return grpc.ssl_channel_credentials(roots, _read(tls.key), _read(tls.cert))


def _system_roots() -> bytes | None:
    """The system's authorities, or SSL_CERT_FILE's; None, which are those that gRPC brings along, where it has none."""
    paths = ssl.get_default_verify_paths()
    bundles = [paths.cafile, f"{paths.capath}/ca-certificates.crt" if paths.capath else None]
    return next((_read(bundle) for bundle in bundles if bundle and Path(bundle).is_file()), None)


def _read(path: str | Path) -> bytes:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); see Tls and PODIUM_TLS_*") from error
    if b"-----BEGIN " not in content:
        # gRPC would only say that it failed to create a handshaker.
        raise ValueError(f"{path} has no certificate or key in PEM; see Tls and PODIUM_TLS_*")
    return content
