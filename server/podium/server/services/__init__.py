"""What the rpcs do: plain functions on domain types. They block, and know nothing of gRPC."""
