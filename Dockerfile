# syntax=docker/dockerfile:1
# One image for every process: web, worker, migrate and runner differ in their command only.
# With a digest for a build that can be repeated: --build-arg PYTHON_IMAGE=python:3.13-slim@sha256:…
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
# `traced` installs the extra otel as well (docs/observability.md).
ARG LOCK=runtime
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# Before our own source: a change of it reuses these layers.
COPY deploy/locks/ deploy/locks/
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv --without-pip /opt/coordinator \
    && pip --python /opt/coordinator/bin/python install --require-hashes --no-deps -r "deploy/locks/${LOCK}.lock"
# Node too: the console is built into the wheel. The image holds none.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --require-hashes --no-deps -r deploy/locks/build.lock -r deploy/locks/console.lock
COPY pyproject.toml README.md LICENSE ./
COPY hatch_build.py ./
COPY console/ console/
COPY app/ app/
COPY cli/ cli/
COPY coordinator_client/ coordinator_client/
COPY devserver/ devserver/
COPY models/ models/
COPY runner/ runner/
COPY runtime/ runtime/
COPY server/ server/
COPY workers/ workers/
RUN --mount=type=cache,target=/root/.npm \
    pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && pip --python /opt/coordinator/bin/python install --no-cache-dir --no-deps --no-index dist/*.whl

FROM ${PYTHON_IMAGE}
# Nothing is installed in a running container.
RUN pip uninstall --yes --root-user-action=ignore pip
COPY --from=build /opt/coordinator /opt/coordinator
# 0.0.0.0: a container's loopback reaches nothing outside. `coordinator web` refuses it until COORDINATOR_AUTH=1 or an
# OIDC issuer asks for credentials, or COORDINATOR_INSECURE=1 says that only trusted machines reach the port.
ENV PATH=/opt/coordinator/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    COORDINATOR_LISTEN_HOST=0.0.0.0 \
    COORDINATOR_LISTEN_PORT=8765 \
    COORDINATOR_LOG_FORMAT=json
WORKDIR /tmp
USER 10001:10001
EXPOSE 8765
STOPSIGNAL SIGTERM
# For web, the default command; switch it off for worker, migrate and runner, which have no port.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8765/health/live', timeout=4)"]
ENTRYPOINT ["coordinator"]
CMD ["web"]
