#!/bin/bash
# compose.yaml, run for real by podman: a scheduler, a worker, the job and a Prometheus that looks at it. No GPU, no Grafana.
#
#   STORE_FOLDER=store tests/docker/build.sh; STORE_FOLDER=store tests/docker/compose.sh
#
# Needs root, podman with runc and a network (netavark, aardvark-dns), podman-compose (pip), Debian's prometheus, and what the
# first line left in the folder of images. From the environment: STORAGE_DRIVER, as of build.sh (overlay).
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${STORE_FOLDER:?the folder where tests/docker/build.sh left the images is missing: STORE_FOLDER=}"
WORK=$(mktemp -d /var/tmp/citycover-compose.XXXXXX)
STORE=(--root "$STORE_FOLDER" --runroot "$WORK/run" --storage-driver "${STORAGE_DRIVER:-overlay}")
ANYBODY=12345

step() { printf '%s  %s\n' "$(date +%T)" "$*" >&2; }
fail() { echo "FAILED: $*" >&2; exit 1; }
# Compose calls podman by a path, and with no options of where images are.
mkdir "$WORK/place" "$WORK/data"
printf '#!/bin/sh\nexec podman --runtime runc --cgroup-manager cgroupfs --events-backend file %s "$@"\n' "${STORE[*]}" > "$WORK/podman"
chmod +x "$WORK/podman"
p() { "$WORK/podman" "$@"; }
compose() {
  CITYCOVER_IMAGE=localhost/citycover-runtime CITYCOVER_USER=$ANYBODY:$ANYBODY CITYCOVER_FOLDER=$WORK/data \
    PROMETHEUS_IMAGE=localhost/citycover-prometheus podman-compose --podman-path "$WORK/podman" --in-pod=false \
    --podman-run-args="--ulimit=nofile=1024:1024 --ulimit=nproc=4096:4096" -f "$WORK/place/compose.yaml" "$@"
}
clean() {
  compose down -v -t 30 > "$WORK/down.log" 2>&1 || true
  p rm -af > /dev/null 2>&1 || true
  rm -rf "$WORK" "$STORE_FOLDER/libpod"  # where podman keeps the name of $WORK
}
trap clean EXIT
# until_ COMMAND...: asked each second, for three minutes at most.
until_() {
  for _ in $(seq 180); do
    ! "$@" > /dev/null 2>&1 || return 0
    sleep 1
  done
  fail "in three minutes it was never so: $*"
}

step "a Prometheus of Debian's program, and compose.yaml without its GPUs"
made=$(buildah "${STORE[@]}" from citycover-base)
buildah "${STORE[@]}" copy --quiet "$made" "$(command -v prometheus)" /bin/prometheus > /dev/null
buildah "${STORE[@]}" copy --quiet --chown 65534:65534 "$made" "$WORK/data" /prometheus > /dev/null
buildah "${STORE[@]}" config --user 65534 --entrypoint '["/bin/prometheus"]' \
  --cmd '--config.file=/etc/prometheus/prometheus.yml --storage.tsdb.path=/prometheus' "$made"
buildah "${STORE[@]}" commit --quiet --rm --format docker "$made" citycover-prometheus > /dev/null
cp -r configs "$WORK/place"
sed '/^    deploy:/,/^$/d' compose.yaml > "$WORK/place/compose.yaml"

step "a region of four scenes"
chown "$ANYBODY:$ANYBODY" "$WORK/data"
inside() {
  p run --rm --no-healthcheck --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 --read-only --tmpfs /tmp \
    --user "$ANYBODY:$ANYBODY" -v "$WORK/data:/data" localhost/citycover-runtime "$@"
}
for number in 1 2 3 4; do inside synth "city/$number" --size 1536 --seed "$number" -q; done
cat > "$WORK/data/region.toml" <<'TOML'
name = "north"
out = "products"
model = "spectral-rgbn"
[[scenes]]
files = ["city/*/image.tif"]
by = "folder"
[engine]
scheduler = "tcp://scheduler:8786"
window = 256
block = [512, 512]
TOML
chown "$ANYBODY:$ANYBODY" "$WORK/data/region.toml"

step "up"
# Its image is in no registry of packages: Grafana.
compose up -d scheduler worker citycover prometheus > "$WORK/up.log" 2>&1 || { cat "$WORK/up.log" >&2; fail "up said $?"; }
[ "$(p ps -q | wc -l)" -eq 4 ] || { cat "$WORK/up.log" >&2; fail "not all four run"; }
until_ p healthcheck run citycover_scheduler_1
until_ p healthcheck run citycover_citycover_1

step "stop, in the middle of a scene"
ledger() { [ -n "$(find "$WORK/data/products" -path '*/ledger/*' -type f)" ]; }
until_ ledger
p stop -t 300 citycover_citycover_1 > /dev/null
code=$(p inspect --format '{{.State.ExitCode}}' citycover_citycover_1)
[ "$code" -eq 143 ] || { p logs citycover_citycover_1 >&2; fail "it was stopped, and ended with $code, not 143"; }

step "on again, to the end"
p start citycover_citycover_1 > /dev/null
code=$(p wait citycover_citycover_1)
[ "$code" -eq 0 ] || { p logs citycover_citycover_1 >&2; fail "the job ended with $code"; }
[ "$(find "$WORK/data/products/maps" -name landcover.tif | wc -l)" -eq 4 ] || fail "there are not four maps"
others=$(find "$WORK/data" ! -user "$ANYBODY")
[ -z "$others" ] || fail "not the user's: $others"
python3 - "$WORK/data/products" <<'PY'
import json
import sys
import urllib.parse
import urllib.request
from pathlib import Path

runs = [json.loads(path.read_text()) for path in Path(sys.argv[1]).glob("maps/*/run.json")]
assert any(run["resumed"] for run in runs), "nothing was gone on with"
assert all(run["workers"] == 1 for run in runs), runs


def asked(query: str) -> list:
    words = urllib.parse.urlencode({"query": query})
    with urllib.request.urlopen(f"http://127.0.0.1:9090/api/v1/query?{words}") as answer:
        return json.load(answer)["data"]["result"]


(seen,) = asked("max_over_time(citycover_pixels_total[1h])")
assert seen["metric"]["instance"] == "citycover:9108", seen
print("Prometheus saw", seen["value"][1], "pixels")
assert float(seen["value"][1]) > 0, seen
PY
step "compose.yaml does what it says"
