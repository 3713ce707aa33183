#!/bin/bash
# The images, built for real and used as in production, with buildah alone: no daemon, no registry of images.
#
#   tests/docker/build.sh            needs root, buildah, debootstrap (the base is made by it), some 6 GB, some minutes
#
# From the environment, for machines with package sources of their own:
#   TORCH=cpu|cuda         which torch (cpu)
#   ONLY=runtime           not the images train and dev as well
#   STORAGE_DRIVER=vfs     of buildah, where overlay file systems cannot be mounted; needs some 30 GB (overlay)
#   TORCH_INDEX=           index of PyTorch's CPU wheels
#   PIP_CONF=              a pip.conf for the build; it is a secret of it, and in no layer
#   BUILD_OPTIONS=         more options of `buildah build`, such as -v /wheels:/wheels:ro
#   BASE_TREE=             a root file system with python3, made earlier by debootstrap
#   STORE_FOLDER=          where images are; they stay there, and the next build goes on from their layers
#   WORK=                  where to work (a new folder below /var/tmp), which is removed at the end
set -euo pipefail
cd "$(dirname "$0")/../.."
TORCH=${TORCH:-cpu}
WORK=$(mktemp -d "${WORK:-/var/tmp}/citycover-image.XXXXXX")
STORE=(--root "${STORE_FOLDER:-$WORK/store}" --runroot "$WORK/run" --storage-driver "${STORAGE_DRIVER:-overlay}")
ANYBODY=12345
MOST=1500000000  # bytes of the CPU image

b() { local verb=$1; shift; buildah "${STORE[@]}" "$verb" "$@"; }
step() { printf '%s  %s\n' "$(date +%T)" "$*" >&2; }
fail() { echo "FAILED: $*" >&2; exit 1; }
clean() {
  buildah "${STORE[@]}" rm --all > /dev/null 2>&1 || true
  rm -rf "$WORK"
}
trap clean EXIT

step "base: Debian with Python"
base() {
  if [ -z "${BASE_TREE:-}" ]; then
    BASE_TREE=$WORK/base
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$BASE_TREE" > "$WORK/debootstrap.log"
  fi
  local made
  made=$(b from scratch)
  tar -C "$BASE_TREE" --one-file-system --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' \
    --exclude='./usr/share/doc/*' --exclude='./usr/share/locale/*' --exclude='./proc/*' --exclude='./sys/*' -cf "$WORK/base.tar" .
  b add --quiet "$made" "$WORK/base.tar" / > /dev/null
  b commit --quiet --rm "$made" citycover-base > /dev/null
  rm -f "$WORK/base.tar"
}
b inspect --type image citycover-base > /dev/null 2>&1 || base

VERSION=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' pipeline/citycover/version.py)
# A secret that is not there is an empty pip.conf.
touch "$WORK/pip.conf"
# build TARGET TORCH CONTEXT OPTIONS...: an image of that name.
build() {
  local target=$1 torch=$2 context=$3; shift 3
  # shellcheck disable=SC2086  # options are words
  b build --layers --isolation chroot --format docker --target "$target" --tag "citycover-$target" \
    --build-arg BASE=localhost/citycover-base --build-arg "TORCH=$torch" --build-arg "TORCH_INDEX=${TORCH_INDEX:-}" \
    --build-arg "REVISION=$(git rev-parse HEAD)" --build-arg "VERSION=$VERSION" \
    --secret "id=pip,src=${PIP_CONF:-$WORK/pip.conf}" ${BUILD_OPTIONS:-} "$@" "$context" > "$WORK/$target.log" 2>&1
}
built() { build "$@" || { tail -40 "$WORK/$1.log" >&2; fail "the build of $1"; }; }

step "a build that gets the CPU's torch where CUDA was asked for"
mkdir "$WORK/wrong"
git ls-files -z | xargs -0 cp --parents -t "$WORK/wrong"
cp docker/locks/torch-cpu.txt "$WORK/wrong/docker/locks/torch-cuda.txt"
! build dependencies cuda "$WORK/wrong" || fail "TORCH=cuda was built with the CPU's torch"
grep -h "^TORCH=cuda, but torch .*+cpu, without CUDA was installed" "$WORK/dependencies.log" \
  || { tail -40 "$WORK/dependencies.log" >&2; fail "it ended for another reason"; }

step "build, TORCH=$TORCH"
built runtime "$TORCH" .
grep -h "^TORCH=" "$WORK/runtime.log" || echo "dependencies are those of an earlier build"

step "what the image says of itself"
b inspect --type image citycover-runtime > "$WORK/image.json"
python3 - "$WORK/image.json" > "$WORK/environment" <<'PY'
import json
import sys

config = json.load(open(sys.argv[1]))["Docker"]["config"]
assert config["Entrypoint"] == ["citycover"], config
assert config["User"] == "10001:10001", config
assert config["StopSignal"] in {"SIGTERM", "15"}, config
assert config["Healthcheck"]["Test"] == ["CMD", "citycover", "doctor", "--quick", "-q"], config
labels = config["Labels"]
assert {"title", "licenses", "version", "revision"} <= {key.rpartition(".")[2] for key in labels}, labels
assert "unknown" not in (labels["org.opencontainers.image.revision"], labels["org.opencontainers.image.version"]), labels
print(*config["Env"], sep="\n")
PY
mapfile -t ENVIRONMENT < "$WORK/environment"

step "what is in it"
# root TARGET: a container of the image, as a folder; the working folder is made as all that run containers do.
root() {
  local at
  at=$(b mount "$(b from "citycover-$1")")
  mkdir -p "$at/data"
  echo "$at"
}
ROOT=$(root runtime)
bytes=$(du -sb "$ROOT" | cut -f1)
echo "size: $((bytes / 1000000)) MB"
[ "$TORCH" != cpu ] || [ "$bytes" -lt $MOST ] || fail "the CPU image has $bytes bytes, more than $MOST"
for program in gcc cc c++ make /opt/venv/bin/pip; do
  [ -z "$(find "$ROOT/usr/bin" "$ROOT/usr/local/bin" "$ROOT/opt/venv/bin" -name "$(basename $program)")" ] || fail "$program is in the image"
done
for library in pytest mypy hypothesis tensorboard matplotlib mkdocs pip; do
  [ -z "$(find "$ROOT/opt/venv" -path "*/site-packages/$library" -type d)" ] || fail "$library is in the image"
done
[ -z "$(find "$ROOT" -xdev -path '*/.cache/pip' -not -path "$ROOT/proc/*")" ] || fail "pip's cache is in the image"

# inside COMMAND...: as the process 1 of a container of a user that nobody knows; the root is read-only, /tmp is memory, and
# /data is the host's folder. Answers with the exit code.
inside() {
  # shellcheck disable=SC2016  # the inner shell expands
  unshare --mount --pid --fork --kill-child sh -c '
    set -e
    root=$1; data=$2; user=$3; shift 3
    mount --make-rprivate /
    mount --bind "$root" "$root"
    mount -o remount,bind,ro "$root"
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    mount --bind "$data" "$root/data"
    [ ! -d "$root/src" ] || mount --bind . "$root/src"
    exec chroot --userspec="$user:$user" "$root" /usr/bin/env -i "$@"
  ' inside "$ROOT" "$WORK/data" "$ANYBODY" "${ENVIRONMENT[@]}" sh -c 'cd /data; exec "$@"' citycover "$@"
}
mkdir "$WORK/data"
chown "$ANYBODY:$ANYBODY" "$WORK/data"

step "the health check, and a root that nobody can write to"
inside citycover doctor --quick -q || fail "the health check said $?"
! inside touch /opt/venv/mine 2> /dev/null || fail "the root can be written to"
inside python -c 'import os; assert os.getpid() == 1, os.getpid()'

step "a map as a user that nobody knows"
inside citycover synth city --size 1024 -q
inside citycover map city/image.tif -o product -q || fail "map said $?"
others=$(find "$WORK/data" ! -user "$ANYBODY")
[ -z "$others" ] || fail "not the user's: $others"
[ -s "$WORK/data/product/item.json" ] || fail "no product"

step "SIGTERM in the middle of a map, as docker stop sends it"
inside citycover synth big --size 8192 -q
inside citycover map big/image.tif -o stopped -q 2> "$WORK/stopped.log" &
waits=$!
for _ in $(seq 1200); do
  [ "$(find "$WORK/data/stopped/.work/ledger" -type f 2> /dev/null | wc -l)" -eq 0 ] || break
  kill -0 $waits 2> /dev/null || fail "the map ended before its first block: $(cat "$WORK/stopped.log")"
  sleep 0.1
done
shell=$(pgrep -P "$waits" -x unshare || echo "$waits")
kill -TERM "$(pgrep -P "$shell" | head -1)"
code=0
wait $waits || code=$?
[ "$code" -eq 143 ] || fail "docker stop would end with $code, not 143: $(cat "$WORK/stopped.log")"
[ -s "$WORK/data/stopped/.work/identity.json" ] || fail "nothing to go on with"
kept=$(find "$WORK/data/stopped/.work/ledger" -type f | wc -l)
step "and on again, from $kept blocks"
inside citycover map big/image.tif -o stopped -q || fail "the map did not go on: $?"
others=$(find "$WORK/data" ! -user "$ANYBODY")
[ -z "$others" ] || fail "not the user's: $others"
python3 - "$WORK/data/stopped/run.json" <<'PY'
import json
import sys

assert json.load(open(sys.argv[1]))["resumed"] is True
PY
[ "${ONLY:-}" != runtime ] || { step "the image is as it should be"; exit 0; }

step "train: a training, with its figures and events"
built train "$TORCH" .
ROOT=$(root train)
[ -z "$(find "$ROOT/opt/venv" -path "*/site-packages/pytest" -type d)" ] || fail "pytest is in the image of training"
inside citycover synth small --size 256 -q
inside citycover train -o trained --recipe vcnet-light --image small/image.tif --labels small/labels_10m.tif --legend city \
  --set epochs=1 -q || fail "train said $?"
for file in model.pt curves.png 'events.out.tfevents.*'; do
  [ -n "$(find "$WORK/data/trained" -name "$file" -size +0)" ] || fail "the training left no $file"
done

step "dev: tests of the checkout"
built dev "$TORCH" .
ROOT=$(root dev)
mkdir -p "$ROOT/src"
b inspect --type image --format '{{range .Docker.Config.Env}}{{println .}}{{end}}' citycover-dev > "$WORK/environment"
mapfile -t ENVIRONMENT < <(grep . "$WORK/environment")
inside sh -c 'cd /src && python -m pytest -q tests/pipeline/geometry' || fail "the tests said $?"
step "the images are as they should be"
