"""What a server process counts and measures as it works: whoever does a thing adds to its meter.

For the whole process, as prometheus_client has it; what the ledger as a whole holds is in podium.server.observing.
Labels have few values: no ids, and nothing that a caller may make up. docs/observability.md says what each meter means.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

_METHOD = ("grpc_type", "grpc_service", "grpc_method")

# Named as other gRPC servers name them, so that dashboards and alerts that are there already understand them.
CALLS_STARTED = Counter("grpc_server_started", "Calls that began.", _METHOD, registry=REGISTRY)
CALLS_HANDLED = Counter("grpc_server_handled", "Calls that ended.", (*_METHOD, "grpc_code"), registry=REGISTRY)
CALL_SECONDS = Histogram(
    "grpc_server_handling_seconds",
    "How long calls that answer once took.",
    _METHOD,
    registry=REGISTRY,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
STREAMS_OPEN = Gauge("podium_streams_open", "Streams that are open now.", ("grpc_method",), registry=REGISTRY)

WATCHERS = Gauge("podium_watchers", "Watchers of jobs now; one of many jobs counts for each.", registry=REGISTRY)
WATCH_LAG = Histogram(
    "podium_watch_lag_seconds",
    "From an event's time to its handing over to this server's watchers.",
    registry=REGISTRY,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)

QUEUE_WAIT = Histogram(
    "podium_queue_wait_seconds",
    "How long jobs that this server dispatched had waited, since they were created or their last attempt ended.",
    ("pool", "priority"),
    registry=REGISTRY,
    buckets=(0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 900, 3600, 4 * 3600, 86_400),
)

WEBHOOK_TRIES = Counter(
    "podium_webhook_tries",
    "Tries to deliver a notice, by receiver: delivered, failed and tried again, or given_up.",
    ("webhook", "outcome"),
    registry=REGISTRY,
)

AUDIT_LEFT_OUT = Counter(
    "podium_audit_refusals_left_out",
    "Refused calls that were not written, as there were too many of them.",
    registry=REGISTRY,
)
WEBHOOK_WAITING = Gauge(
    "podium_webhook_waiting",
    "Notices at hand that a receiver has not taken yet.",
    ("webhook",),
    registry=REGISTRY,
)

AUDIT_LOST = Counter(
    "podium_audit_events_lost",
    "Audit events that were not written, as the ledger was away too long.",
    registry=REGISTRY,
)
