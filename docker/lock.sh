#!/bin/sh
# lock.sh: make docker/locks anew from pyproject.toml and constraints.txt, with a hash for every file; needs uv.
# torch-cpu.txt alone is kept by hand: its wheels are in no general registry.
set -eu
cd "$(dirname "$0")/.."
made=$(mktemp)
trap 'rm -f "$made"' EXIT
# $1: the lock; the rest: extras.
lock() {
  into=$1; shift
  # shellcheck disable=SC2046  # one --extra for each
  uv pip compile pyproject.toml $(printf ' --extra %s' "$@") --constraint constraints.txt --python-version 3.11.0 \
    --python-platform x86_64-manylinux_2_28 --generate-hashes --no-annotate --no-header --quiet -o "$made"
  pick 0 > "docker/locks/$into.txt"
}
# The blocks of torch and its CUDA libraries (1), or all others (0).
pick() {
  awk -v want="$1" '/^[a-zA-Z0-9]/ { cuda = ($0 ~ /^(torch|triton|nvidia-[a-z0-9-]*|cuda-[a-z0-9-]*)(\[|=)/) } cuda == want' "$made"
}
lock runtime vector metrics s3 otel
pick 1 > docker/locks/torch-cuda.txt
lock train vector metrics s3 otel train plots
lock dev vector metrics dev
echo hatchling | uv pip compile - --constraint constraints.txt --python-version 3.11.0 --generate-hashes --no-annotate \
  --no-header --quiet -o docker/locks/build.txt
