# docker build -t support-hub .        (docs/install.md says how to run it)

FROM python:3.13-slim-bookworm AS base


FROM base AS builder
# A package index of one's own: docker build --build-arg PIP_INDEX_URL=...
ARG PIP_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build

# The locks first: this layer is built again only when they change.
COPY requirements.lock ./
COPY tests/build.lock tests/
RUN python -m venv --without-pip /opt/hub \
    && python -m pip --python /opt/hub/bin/python install --compile --require-hashes -r requirements.lock \
    && python -m pip install --require-hashes -r tests/build.lock

COPY pyproject.toml README.md LICENSE config.yaml ./
COPY hub hub/
COPY connectors connectors/
COPY templates templates/
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && python -m pip --python /opt/hub/bin/python install --compile --no-deps dist/*.whl


FROM base AS runtime
# A fixed number, so that the owner of a mounted directory can be given it and an orchestrator can see that it is not root.
RUN groupadd --gid 10001 hub \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin hub \
    && install --directory --owner=10001 --group=10001 --mode=0750 /data

COPY --from=builder /opt/hub /opt/hub
# In a container, loopback is the container itself: listen on its address, and publish the port to choose who reaches it.
ENV PATH=/opt/hub/bin:$PATH PYTHONUNBUFFERED=1 HUB_SERVER__HOST=0.0.0.0
# The base image ships the standard library without bytecode, and the hub's user may not write it: compile what is used.
RUN python -c "import hub.app"

# From /, the shipped settings' relative paths (data/hub.db, data/files, data/secret) lie on the volume.
WORKDIR /
COPY config.yaml /config.yaml
VOLUME /data
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:%s/healthz' % os.environ.get('HUB_SERVER__PORT', '8080'), timeout=4)"]
ENTRYPOINT ["hub"]
CMD ["serve"]
