"""`python -m podium.client.cli` is `podium`."""

from podium.client.cli import main

main()
