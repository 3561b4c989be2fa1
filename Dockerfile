# syntax=docker/dockerfile:1
# One image for every process: web, worker, migrate and runner differ in their command only.
ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# Before our own source: a change of it reuses these layers.
COPY deploy/locks/ deploy/locks/
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv --without-pip /opt/coordinator \
    && pip --python /opt/coordinator/bin/python install --require-hashes --no-deps -r deploy/locks/runtime.lock
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --require-hashes --no-deps -r deploy/locks/build.lock
COPY pyproject.toml README.md ./
COPY app/ app/
COPY cli/ cli/
COPY models/ models/
COPY runner/ runner/
COPY runtime/ runtime/
COPY workers/ workers/
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && pip --python /opt/coordinator/bin/python install --no-cache-dir --no-deps --no-index dist/*.whl

FROM python:${PYTHON_VERSION}-slim
# Nothing is installed in a running container.
RUN pip uninstall --yes --root-user-action=ignore pip
COPY --from=build /opt/coordinator /opt/coordinator
# 0.0.0.0: a container's loopback reaches nobody. `coordinator web` refuses it until COORDINATOR_INSECURE=1 says that only
# trusted machines reach the port, since there is no authentication yet.
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
# Of web, the default command; whoever starts another one switches it off (worker, migrate and runner have no port).
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8765/health/live', timeout=4)"]
ENTRYPOINT ["coordinator"]
CMD ["web"]
