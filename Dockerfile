# Images of citycover. Targets: runtime (maps; the default), train (its recipes as well), dev (tests and tools).
#
#   docker build -t citycover .                          CUDA torch, from the registry that pip is set to
#   docker build -t citycover:cpu --build-arg TORCH=cpu --build-arg TORCH_INDEX=<index of PyTorch's CPU wheels> .
#   docker build -t citycover:base --build-arg TORCH=base --build-arg BASE=<an image with Python and torch> .
#   docker build -t citycover-train --target train .
#
# A registry of your own, and a folder of wheels: --secret id=pip,src=pip.conf --build-context wheels=<folder>.
#
# TORCH  | torch that is installed                        | what the base must have
# cuda   | 2.13.0 of the lock, with CUDA in the wheels    | Python 3.11; on the host a driver and NVIDIA's container toolkit
# cpu    | 2.13.0+cpu of the lock                         | Python 3.11
# base   | none: the base's own                           | Python 3.11 or later and torch 2.8 or later, importable by python3
#
# The build fails where `torch.version.cuda` is not what was asked for.
ARG BASE=python:3.11-slim-bookworm
ARG TORCH=cuda


# Dependencies alone, at versions and hashes of the lock: this layer stays as long as the lock does.
FROM ${BASE} AS dependencies
ARG TORCH
ARG TORCH_INDEX=
COPY docker/locks /locks
COPY docker/install_torch.sh docker/prune.sh docker/check_torch.py docker/check_imports.py /build/
# pip lives outside of the environment that it fills: what runs in production needs none.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv /opt/pip \
 && python3 -m venv --without-pip $([ "$TORCH" != base ] || echo --system-site-packages) /opt/venv \
 && /opt/pip/bin/pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --no-deps \
    --require-hashes -r /locks/runtime.txt \
 && sh /build/install_torch.sh "$TORCH" "$TORCH_INDEX" \
 && sh /build/prune.sh /opt/venv
# What a map imports comes on this base, and is compiled by that; nothing else is, which saves a hundred MB.
RUN /opt/venv/bin/python /build/check_torch.py "$TORCH" && /opt/venv/bin/python /build/check_imports.py


# citycover itself, built as a wheel and laid out as the environment is.
FROM dependencies AS package
COPY pyproject.toml README.md LICENSE /src/
COPY pipeline /src/pipeline
COPY models /src/models
COPY cli /src/cli
COPY configs /src/configs
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/pip/bin/pip install --no-cache-dir --no-deps --require-hashes -r /locks/build.txt \
 && /opt/pip/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /dist /src \
 && /opt/pip/bin/pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --prefix /opt/package /dist/*.whl


FROM ${BASE} AS runtime
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=package /opt/package /opt/venv
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
ARG TORCH
LABEL org.opencontainers.image.title="citycover" \
      org.opencontainers.image.description="From imagery of a city to a finished, georeferenced land-cover product" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      citycover.torch="${TORCH}"
# What libraries want to write goes to /tmp: the root may be read-only, and the user may be any.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    XDG_CACHE_HOME=/tmp/.cache \
    MPLCONFIGDIR=/tmp/.matplotlib \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /data
# citycover is process 1 and hears SIGTERM itself: it finishes the block in hand, and exits with 143.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=2m --timeout=60s --start-period=60s --retries=3 CMD ["citycover", "doctor", "--quick", "-q"]
ENTRYPOINT ["citycover"]
CMD ["--help"]


FROM runtime AS train
USER 0
COPY docker/locks/train.txt /locks/train.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=bind,from=dependencies,source=/opt/pip,target=/opt/pip \
    /opt/pip/bin/pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --require-hashes \
    -r /locks/train.txt
USER 10001:10001


FROM train AS dev
USER 0
COPY docker/locks/dev.txt /locks/dev.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=bind,from=dependencies,source=/opt/pip,target=/opt/pip \
    /opt/pip/bin/pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --require-hashes \
    -r /locks/dev.txt
# The checkout is mounted: docker run -v "$PWD:/src" --user "$(id -u)" citycover-dev; its tools keep what they find in /tmp,
# so that the checkout may be another one's.
ENV PYTHONPATH=/src/pipeline:/src/models:/src/cli \
    HYPOTHESIS_STORAGE_DIRECTORY=/tmp/.hypothesis \
    MYPY_CACHE_DIR=/tmp/.mypy \
    PYTEST_ADDOPTS="-o cache_dir=/tmp/.pytest" \
    RUFF_CACHE_DIR=/tmp/.ruff
USER 10001:10001
WORKDIR /src
ENTRYPOINT []
CMD ["python", "-m", "pytest", "-q", "-m", "not slow and not gpu and not root"]
HEALTHCHECK NONE


# The default is the last one.
FROM runtime
