# %% [markdown]
# # Compare two years
#
# Two images of one place, with houses that were built on fields between them: a synthetic town's edge, and the same
# with a square out of another town. What changed is known, so one sees what a comparison of two maps is worth.

# %%
SIZE = 512  # pixels of 1 m

from pathlib import Path
from shutil import copy

import citycover
import numpy as np
import rasterio
from citycover.synth.write import write_city

write_city(Path("2020"), SIZE, seed=12)
write_city(Path("other"), SIZE, seed=15)
Path("2024").mkdir()
copy("2020/image.tif", "2024/image.tif")
first, last = SIZE // 4, SIZE // 2  # of the quarter, in both directions
window = ((first, last), (first, last))
with rasterio.open("other/image.tif") as other, rasterio.open("2024/image.tif", "r+") as later:
    later.write(other.read(window=window), window=window)

for year in ("2020", "2024"):
    request = citycover.MapRequest(citycover.Imagery((f"{year}/image.tif",)), f"product-{year}")
    show(citycover.map_scene(request).folder / "preview.png", year)

# %% [markdown]
# The comparison: square metres from each class to each other one, and a raster of the transitions.

# %%
change = citycover.compare("product-2020", "product-2024", "change.tif")
print(f"{change.whole.changed / 1e4:.2f} ha changed, of {SIZE * SIZE / 1e4:.2f}")
rows = [row for row in change.rows() if row["from_name"] != row["to_name"]]
for row in sorted(rows, key=lambda row: -row["area_m2"])[:6]:
    print(f"{row['from_name']:<18} -> {row['to_name']:<18} {row['area_m2'] / 1e4:6.2f} ha")

# %% [markdown]
# Only the quarter was built anew. What changed outside of it is an error of the maps: near its edge, the network
# sees the quarter, too.

# %%
with rasterio.open("change.tif") as dataset:
    codes, table = dataset.read(1), dataset.colormap(1)
changed = codes > 1
quarter = np.zeros_like(changed)
quarter[first:last, first:last] = True
print(f"inside the quarter {changed[quarter].mean():.1%} changed, outside {changed[~quarter].mean():.2%}")

# %%
from citycover.classes.legend import read_legend
from citycover.draw.colours import colorize
from citycover.draw.panels import write_panels

legend = read_legend("landcover5")
panels = []
for year in ("2020", "2024"):
    with rasterio.open(f"product-{year}/landcover.tif") as dataset:
        panels.append((year, colorize(dataset.read(1), legend)))
colours = np.array([table[code][:3] for code in range(256)], np.uint8)
panels.append(("change, in the colour of what it became", colours[codes]))
write_panels(Path("change.png"), panels, legend, "what changed")
show("change.png", "both maps, and the transitions between them; unchanged ground is pale")

# %% [markdown]
# How each class divided.

# %%
from citycover.derive.flow import write_flow_figure

write_flow_figure(change.whole, change.legend, Path("flow.png"), ("2020", "2024"))
show("flow.png", "how each class divided")
