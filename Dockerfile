# The image of every role: docker-compose.yml says which one a container is.
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/dicomferry
# What changes seldom comes first: a change of our code alone reuses this layer. Everything is hashed, the backend too.
COPY requirements.lock requirements-build.lock ./
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes -r requirements-build.lock \
 && /opt/dicomferry/bin/pip install --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY cli cli
COPY daemon daemon
COPY workers workers
COPY models models
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /opt/dicomferry/bin/pip install --no-deps --no-index --find-links /wheels dicomferry

FROM python:3.11.14-slim-bookworm
RUN useradd --uid 10001 --user-group --create-home --home-dir /var/lib/dicomferry dicomferry
COPY --from=build /opt/dicomferry /opt/dicomferry
ENV PATH=/opt/dicomferry/bin:$PATH PYTHONUNBUFFERED=1 DICOMFERRY_HOME=/var/lib/dicomferry/home
USER dicomferry
WORKDIR /var/lib/dicomferry
# Made here, so that a named volume mounted on it is first filled with the right owner.
RUN mkdir -m 0700 home
VOLUME ["/var/lib/dicomferry/home"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 \
    CMD ["dicomferry", "status", "--check", "--here"]
ENTRYPOINT ["dicomferry"]
CMD ["worker"]
