# `make demo` and `make test` do all their own set-up: a virtual environment inside the checkout, pinned.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
PEERS := .bench-venv
PEERS_STAMP := $(PEERS)/.installed
TESTS := -n 2 --dist worksteal -m "not slow and not gpu and not root and not browser"

.PHONY: docs examples demo test lint types unit test-s3 test-forms test-slow test-region test-production test-prometheus test-slurm test-airflow test-otel test-gpu test-browser test-hosts power fuzz crash bench bench-forms bench-page bench-start gpu-city forward-share evidence-share memory models-table accuracy domains urban image compose systemd clean

demo: $(STAMP)
	$(BIN)/citycover demo demo --overwrite

test: lint types unit

# The site, into build/site; what would be a warning is an error. `make test` builds it, too.
docs: $(STAMP)
	$(BIN)/mkdocs build --strict

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: $(STAMP)
	$(BIN)/mypy

unit: $(STAMP)
	$(BIN)/pytest $(TESTS)

# The examples of the site run anew, with their pictures: some minutes.
examples: $(STAMP)
	$(BIN)/python docs/site/examples.py

# Against an object store of another make: moto, in an environment of its own, because it needs an older dateutil.
test-s3: $(STAMP)
	test -x .s3-venv/bin/moto_server || { $(PYTHON) -m venv .s3-venv && .s3-venv/bin/pip install --quiet "moto[s3]==5.2.5" flask flask-cors; }
	.s3-venv/bin/moto_server -p 5556 & server=$$!; trap "kill $$server" EXIT; sleep 5; \
	CITYCOVER_S3=http://127.0.0.1:5556 $(BIN)/pytest tests/pipeline/run/test_remote.py tests/pipeline/region/test_bucket.py tests/pipeline/read/test_s3.py \
	tests/pipeline/run/test_far.py tests/pipeline/files/test_store.py tests/pipeline/store/test_store.py -k "another_server or test_s3 or server"

test-slow: $(STAMP)
	$(BIN)/pytest -m slow --timeout 3600

# What production runs on, by tools that `make test` does without: those of Compose, Kubernetes, Grafana, Dask, and
# Debian's (apt install cron prometheus shellcheck systemd). -rs says what is skipped for want of one.
test-production: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt check-jsonschema kubernetes-validate grafana-foundation-sdk
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps dask-kubernetes
	PATH="$$PWD/$(BIN):$$PATH" $(BIN)/pytest -rs --timeout 600 tests/production/test_production.py tests/production/test_first_month.py

# A real Prometheus looks at a run, a node exporter at its end (apt install prometheus prometheus-node-exporter).
test-prometheus: $(STAMP)
	$(BIN)/pytest -m slow tests/production/test_prometheus.py

# The array and Dask's workers on a real SLURM of one node (apt install slurmctld slurmd slurm-client munge): some minutes.
test-slurm: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt dask-jobqueue
	$(BIN)/pytest -rs -m slow --timeout 1800 tests/production/test_slurm.py

# Airflow, which lives in an environment of its own, runs the DAG once.
test-airflow: $(STAMP)
	test -x .airflow-venv/bin/airflow || { $(PYTHON) -m venv .airflow-venv && .airflow-venv/bin/pip install --quiet apache-airflow==3.3.2 apache-airflow-providers-standard==1.21.0; }
	PATH="$$PATH:$$PWD/.airflow-venv/bin" $(BIN)/pytest -rs -m slow --timeout 1800 tests/production/test_airflow.py

# Spans, as the SDK of OpenTelemetry sees them.
test-otel: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[otel]"
	$(BIN)/pytest tests/cli/test_spans.py

# Twelve scenes, killed, gone on with, changed, in parts: some minutes.
test-region: $(STAMP)
	$(BIN)/pytest -s -m slow --timeout 1800 tests/production/test_twelve_scenes.py

test-hosts: $(STAMP)
	$(BIN)/pytest -m root tests/hosts

# Power cuts for real, on a disk of its own: needs root and loop devices.
power: $(STAMP)
	$(BIN)/pytest -s -m root tests/power

# Pages in Debian's Chromium (apt install chromium); SHOTS=folder keeps pictures of them.
test-browser: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[browser]"
	$(BIN)/pytest -m browser tests/browser

test-gpu: $(STAMP)
	$(BIN)/pytest -m gpu tests/gpu

# A city of 8.6 Gpx end to end, and the network in each precision: for a machine with a large GPU.
gpu-city: $(STAMP)
	$(BIN)/python tests/benchmarks/gpu_city.py --size 16384 92736 --forms

# Readers of files against inputs that are almost right: FUZZ="--inputs 10000" and the like.
fuzz: $(STAMP)
	$(BIN)/python tests/fuzz/fuzz.py $(FUZZ)

# Every state that a power cut may leave of a run, a restart, a replacement: some minutes.
crash: $(STAMP)
	$(BIN)/python tests/crash/crash.py $(CRASH)

# All kinds of runs in another form than torch's, and what brings networks to TensorRT: some minutes.
test-forms: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[openvino]" onnx onnxruntime onnxscript
	$(BIN)/pytest -n 2 --timeout 1800 tests/pipeline/model/test_form.py tests/pipeline/model/test_aotinductor.py tests/pipeline/model/test_tensorrt.py tests/pipeline/compute/test_forms.py tests/pipeline/run/test_combinations.py

# Whole runs with --form auto against torch in fp32; into docs/benchmarks.md. BENCH="--size 2048" and the like.
bench-forms: $(STAMP)
	$(BIN)/python tests/benchmarks/forms.py $(BENCH)

memory: $(STAMP)
	$(BIN)/python tests/benchmarks/memory.py

forward-share: $(STAMP)
	$(BIN)/python tests/benchmarks/forward_share.py

# What labels cost in a sweep, in processor time.
evidence-share: $(STAMP)
	$(BIN)/python tests/benchmarks/evidence_share.py

# Against the peers, which live in an environment of their own; BENCH="--sizes 8192 --repeats 1" and the like.
bench: $(STAMP) $(PEERS_STAMP)
	$(BIN)/python tests/benchmarks/peers.py $(BENCH)

# docs/benchmarks.md anew from docs/benchmarks.json.
bench-page: $(STAMP)
	$(BIN)/python tests/benchmarks/page.py

# What an answer costs: --help of each verb, plans, a thousand scenes; into docs/benchmarks.md. BENCH="--runs 1 --no-doc".
bench-start: $(STAMP)
	$(BIN)/python tests/benchmarks/start.py $(BENCH)

urban: $(STAMP)
	$(BIN)/python -m citycover_models.builtin.urban $(if $(CITYCOVER_DATA),--data $(CITYCOVER_DATA))

accuracy: $(STAMP)
	$(BIN)/python tests/benchmarks/accuracy.py $(ACCURACY)

domains: $(STAMP)
	$(BIN)/python tests/benchmarks/domains.py

models-table: $(STAMP)
	$(BIN)/python -m citycover_models.catalogue.document docs

# The CPU image, built by buildah and used as in production: needs root, buildah, debootstrap.
image:
	tests/docker/build.sh

# compose.yaml by podman, with the images that STORE_FOLDER=... make image left: needs podman, runc, netavark, prometheus too.
compose: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt podman-compose
	PATH="$$PWD/$(BIN):$$PATH" STORE_FOLDER="$(STORE_FOLDER)" tests/docker/compose.sh

# The units of systemd, started by a real one in a container: the same, and package sources.
systemd:
	STORE_FOLDER="$(STORE_FOLDER)" tests/docker/systemd.sh

clean:
	rm -rf .venv .s3-venv .airflow-venv $(PEERS) demo .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

$(PEERS_STAMP): tests/benchmarks/peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/benchmarks/peers.txt
	touch $(PEERS_STAMP)
