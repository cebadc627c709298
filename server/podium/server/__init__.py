"""The front desk: the gRPC service, the dispatcher and the reconciler. `python -m podium.server` runs it."""
