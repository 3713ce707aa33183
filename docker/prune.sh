#!/bin/sh
# prune.sh ENVIRONMENT: without what only tests of libraries and compilers would read.
set -eu
cd "$1"/lib/python3*/site-packages
for library in dask numpy pandas pyarrow scipy shapely sympy xarray; do
  if [ -d "$library" ]; then find "$library" -type d -name tests -prune -exec rm -rf {} +; fi
done
rm -rf pyarrow/include pyarrow/src
# Arrow's network protocol, a module of its own.
find pyarrow -maxdepth 1 -name '*flight*' -exec rm -rf {} +
if [ -d torch ]; then
  rm -rf torch/include torch/share torch/test
  find torch/bin -type f ! -name torch_shm_manager -delete
  find torch/lib -name '*.a' -delete
fi
