# %% [markdown]
# # Gallery: what each command leaves
#
# Every command below was run by `make examples`, in this order, in one folder; under it stands what it said, and the
# files that it left. The place is a synthetic city.

# %%
SIZE = 320  # pixels of 1 m

import shlex
import subprocess
import sys
from pathlib import Path


def run(command):
    """Run a command as the shell would; print what it said, and which files are new."""
    before = set(Path().rglob("*"))
    words = [sys.executable, "-m", "citycover_cli", *shlex.split(command.format(SIZE=SIZE))]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    print(f"$ citycover {command.format(SIZE=SIZE)}\n{done.stdout.rstrip()}\n")
    new = [p for p in Path().rglob("*") if p not in before and p.is_file() and ".zarr/" not in p.as_posix()]
    for path in sorted(new):
        print(f"{path.as_posix():<40} {path.stat().st_size:>12,} bytes")


# %% [markdown]
# ## synth: a place to practise on

# %%
run("synth city --size {SIZE} --seed 8 --quiet")

# %% [markdown]
# ## inspect: what is in a file

# %%
run("inspect city/image.tif")

# %% [markdown]
# ## plan: what would it take

# %%
run("plan city/image.tif --no-probe")

# %% [markdown]
# ## map: a product

# %%
run("map city/image.tif --format cog,zarr --probabilities --entropy --out product --quiet")
show("product/preview.png", "preview.png: image beside map")

# %% [markdown]
# `report.html` shows the same with a swipe, areas, confidence and provenance; the `.qml` files are styles for QGIS.
#
# ## stats: how much of what

# %%
run("stats product -o areas.csv")

# %% [markdown]
# ## vectorize: polygons

# %%
run("vectorize product -o areas.gpkg --min-area 100")

# %% [markdown]
# ## refine: a tidier map

# %%
run("refine product -o tidy --majority 5 --min-area 200")

# %%
import rasterio
from citycover.classes.legend import read_legend
from citycover.draw.colours import colorize
from citycover.draw.panels import write_panels

legend = read_legend("landcover5")
panels = []
for name in ("product", "tidy"):
    with rasterio.open(f"{name}/landcover.tif") as dataset:
        panels.append((name, colorize(dataset.read(1), legend)))
write_panels(Path("tidier.png"), panels, legend, "before and after")
show("tidier.png", "before and after")

# %% [markdown]
# ## compare: what changed

# %%
from shutil import copytree

copytree("city", "later")  # and a forest where there were houses
run("synth forest --size {SIZE} --seed 7 --quiet")
window = ((0, SIZE // 2), (0, SIZE // 2))
with rasterio.open("forest/image.tif") as forest, rasterio.open("later/image.tif", "r+") as later:
    later.write(forest.read(window=window), window=window)
run("map later/image.tif --out product-later --quiet")
run("compare product product-later -o change.tif --figure change.png --table change.csv")
show("change.png", "change.png: how each class divided")

# %% [markdown]
# ## evaluate: how good is it

# %%
run("evaluate product --truth city/truth.tif --legend city --to base4 --figure matrix.png -o eval.json")
show("matrix.png", "matrix.png")

# %% [markdown]
# ## sample: points to interpret

# %%
run("sample product --points 100 -o points.geojson")

# %% [markdown]
# ## collect: many products as one catalogue

# %%
run("collect . --title 'Practice cities'")

# %% [markdown]
# ## models: what is there to map with

# %%
run("models show spectral-rgbn")
