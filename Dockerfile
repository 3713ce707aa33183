# One image for CPU and GPU nodes: the base brings Python 3.11+ and, on GPU nodes, its own torch.
#   docker build -t citycover .
#   docker build -t citycover --build-arg BASE=<a CUDA image with Python and torch> .
ARG BASE=python:3.12-slim
FROM ${BASE}

RUN useradd --create-home --uid 10001 citycover
WORKDIR /opt/citycover
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY pipeline pipeline
COPY models models
COPY cli cli
COPY configs configs
# constraints.txt pins torch too; a base that brings its own keeps it (TORCH=base).
ARG TORCH=pinned
RUN python3 -m venv --system-site-packages /opt/venv \
 && if [ "$TORCH" = base ]; then sed -i '/^torch==/d' constraints.txt; fi \
 && /opt/venv/bin/pip install --no-cache-dir -c constraints.txt ".[vector]"

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1
USER citycover
WORKDIR /data
HEALTHCHECK --interval=5m --timeout=20s CMD ["citycover", "--version"]
ENTRYPOINT ["citycover"]
CMD ["--help"]
