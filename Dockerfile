# The image of every role: docker-compose.yml says which one a container is.
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv --without-pip /opt/dicomferry
# What changes seldom comes first: a change of our code alone reuses this layer. Everything is hashed, the backend too.
COPY requirements-image.lock requirements-build.lock ./
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes -r requirements-build.lock \
 && /opt/build/bin/pip --python /opt/dicomferry/bin/python install --require-hashes -r requirements-image.lock
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY cli cli
COPY daemon daemon
COPY workers workers
COPY models models
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /opt/build/bin/pip --python /opt/dicomferry/bin/python install --no-deps --no-index --find-links /wheels dicomferry

FROM python:3.11.14-slim-bookworm
LABEL org.opencontainers.image.title="dicomferry" \
      org.opencontainers.image.description="Batch transfer of DICOM instances, with proof per instance" \
      org.opencontainers.image.licenses="MIT"
# Made here, so that a named volume mounted on one of them is first filled with the right owner.
RUN useradd --uid 10001 --user-group --create-home --home-dir /var/lib/dicomferry dicomferry \
 && install -d -m 0700 -o dicomferry -g dicomferry /archive /export /var/lib/dicomferry/home && install -d /data
COPY --from=build /opt/dicomferry /opt/dicomferry
ENV PATH=/opt/dicomferry/bin:$PATH PYTHONUNBUFFERED=1 DICOMFERRY_HOME=/var/lib/dicomferry/home
USER dicomferry
WORKDIR /var/lib/dicomferry
VOLUME ["/var/lib/dicomferry/home"]
EXPOSE 11112
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=20s --start-period=90s --retries=3 \
    CMD ["dicomferry", "status", "--check", "--here"]
ENTRYPOINT ["dicomferry"]
CMD ["worker"]
