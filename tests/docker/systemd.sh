#!/bin/bash
# The units of systemd, started by a real one: in a container of podman, that the image for maps is the base of.
#
#   STORE_FOLDER=store tests/docker/build.sh; STORE_FOLDER=store tests/docker/systemd.sh
#
# Needs root, podman with runc, package sources for the base (systemd is installed in it), and what the first line left in the
# folder of images. From the environment: STORAGE_DRIVER, as of build.sh (overlay).
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${STORE_FOLDER:?the folder where tests/docker/build.sh left the images is missing: STORE_FOLDER=}"
WORK=$(mktemp -d /var/tmp/citycover-systemd.XXXXXX)
STORE=(--root "$STORE_FOLDER" --runroot "$WORK/run" --storage-driver "${STORAGE_DRIVER:-overlay}")

step() { printf '%s  %s\n' "$(date +%T)" "$*" >&2; }
fail() { echo "FAILED: $*" >&2; exit 1; }
b() { local verb=$1; shift; buildah "${STORE[@]}" "$verb" "$@"; }
p() { podman --runtime runc --cgroup-manager cgroupfs --events-backend file "${STORE[@]}" "$@"; }
clean() {
  p rm -af -t 5 > /dev/null 2>&1 || true
  b rm "${made:-none}" > /dev/null 2>&1 || true
  rm -rf "$WORK" "$STORE_FOLDER/libpod"  # where podman keeps the name of $WORK
}
trap clean EXIT

step "a machine with systemd, citycover at /opt/citycover, and the units"
made=$(b from citycover-runtime)
b run --isolation chroot --user 0 "$made" sh -c '
  apt-get update && apt-get install -y --no-install-recommends systemd systemd-sysv dbus
  useradd citycover && ln -s /opt/venv /opt/citycover && install -d -o citycover /srv/citycover/north' > "$WORK/apt.log" 2>&1 \
  || { tail -20 "$WORK/apt.log" >&2; fail "systemd could not be installed"; }
b copy --quiet "$made" configs/production/systemd /etc/systemd/system > /dev/null
b config --user 0 --workingdir / --entrypoint '["/lib/systemd/systemd"]' --cmd "" --healthcheck NONE --stop-signal 37 "$made"
b commit --quiet --rm --format docker "$made" citycover-systemd > /dev/null
p run -d --name machine --systemd=always --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 localhost/citycover-systemd > /dev/null
on() { p exec machine "$@"; }
as() { p exec --user citycover --workdir /srv/citycover/north machine /opt/citycover/bin/citycover "$@"; }
shown() { on systemctl show -P "$1" citycover@north; }
for _ in $(seq 60); do ! on systemctl is-active -q timers.target 2> /dev/null || break; sleep 1; done
on systemctl is-active -q timers.target || { p logs machine >&2; fail "systemd did not start"; }

step "the timer"
on systemctl enable --now citycover@north.timer 2> /dev/null
on systemctl list-timers --no-pager citycover@north.timer | grep -E -- '-03 02:[0-9]{2}' || fail "the timer has no third of a month"

step "the service: stopped in the middle, and started again"
for number in 1 2; do as synth "city/$number" --size 2048 --seed "$number" -q; done
cat > "$WORK/region.toml" <<'TOML'
name = "north"
out = "products"
model = "spectral-rgbn"
[[scenes]]
files = ["city/*/image.tif"]
by = "folder"
[engine]
threads = 1
window = 256
block = [512, 512]
TOML
p cp "$WORK/region.toml" machine:/srv/citycover/north/region.toml
said() { on journalctl --no-pager -u citycover@north >&2; }
on systemctl start --no-block citycover@north
begun() { on find /srv/citycover/north/products -path '*/ledger/*' -type f 2> /dev/null | grep -q .; }
for _ in $(seq 180); do ! begun || break; sleep 0.5; done
begun || { said; fail "no block was ever finished"; }
on systemctl stop citycover@north
ended="$(shown ExecMainStatus) $(shown Result)"
[ "$ended" = "143 success" ] || { said; fail "it was stopped, and ended with $ended"; }
on systemctl start citycover@north || { said; fail "the service failed"; }
[ "$(shown ExecMainStatus)" = 0 ] || { said; fail "it ended with $(shown ExecMainStatus)"; }
on sh -c 'grep -h resumed /srv/citycover/north/products/maps/*/run.json' | grep -q true || fail "nothing was gone on with"
on test -s /srv/citycover/north/citycover.prom || fail "no metrics"

step "scenes that fail are no failure of the unit, and a region file that is wrong is one"
on sh -c 'mkdir /srv/citycover/north/city/bad && head -c 200 /srv/citycover/north/city/1/image.tif > /srv/citycover/north/city/bad/image.tif'
on systemctl start citycover@north || { said; fail "the service failed"; }
[ "$(shown ExecMainStatus)" = 3 ] || { said; fail "it ended with $(shown ExecMainStatus)"; }
on sh -c 'echo nonsense > /srv/citycover/north/region.toml'
! on systemctl start citycover@north 2> /dev/null || fail "a wrong region file is no failure"
[ "$(shown ExecMainStatus)" = 2 ] || fail "it ended with $(shown ExecMainStatus)"

step "a machine that is unfit: the service is not started"
on sh -c 'printf "#!/bin/sh\nexit 4\n" > /opt/unfit && chmod +x /opt/unfit && mkdir /run/systemd/system/citycover@.service.d'
on sh -c 'printf "[Service]\nExecCondition=/opt/unfit\n" > /run/systemd/system/citycover@.service.d/unfit.conf && systemctl daemon-reload'
on systemctl start citycover@north || fail "an unfit machine is a failure"
[ "$(shown Result)" = exec-condition ] || fail "it was started: $(shown Result)"
step "the units do what they say"
