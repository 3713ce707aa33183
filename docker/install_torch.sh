#!/bin/sh
# install_torch.sh cuda|cpu|base [INDEX]: the torch of the lock into /opt/venv; INDEX: where its CPU wheels are.
set -eu
case "$1" in
  base) exit 0 ;;
  cuda | cpu) ;;
  *) echo "TORCH is '$1'; it takes cuda, cpu or base" >&2; exit 2 ;;
esac
exec /opt/pip/bin/pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --no-deps --require-hashes \
  ${2:+--extra-index-url "$2"} -r "/locks/torch-$1.txt"
