# %% [markdown]
# # Map a file
#
# A four-band image becomes a land-cover product: classes with colours and names, confidence, statistics. The
# city is a synthetic one, so that this page runs anywhere; `make examples` runs it anew.

# %%
SIZE = 512  # pixels of 1 m
SEED = 8  # of the city: houses beside a park

from pathlib import Path

import citycover
from citycover.synth.write import write_city

city = write_city(Path("city"), SIZE, SEED)
image = citycover.Imagery(("city/image.tif",))

# %% [markdown]
# What would it take? Nothing is written yet.

# %%
request = citycover.MapRequest(image, "product", layers=("probabilities", "entropy"))
found = citycover.plan_scene(request)
plan = found.settled.plan
print(f"{plan.windows} windows of {plan.y.window} x {plan.x.window} px, redundancy {plan.redundancy:.2f}")

# %% [markdown]
# The map. A run that was interrupted goes on when it is asked for again.

# %%
product = citycover.map_scene(request)
show(product.folder / "preview.png", "image beside map")
print(*sorted(path.name for path in product.files), sep="\n")

# %% [markdown]
# In a notebook `product` shows this picture with its areas. As numbers:

# %%
for name, area in product.areas().items():
    print(f"{name:<18} {area / 1e4:8.2f} ha")

# %% [markdown]
# As an xarray dataset, lazily; and how sure the network is of what it calls built-up.

# %%
maps = citycover.open_product(product.folder)
built_up = maps.classes == 5
sure = maps.confidence.where(built_up).mean() / 255
print(dict(maps.sizes), f"mean confidence of built-up: {float(sure):.2f}")

# %% [markdown]
# As polygons of at least 100 m² for a GIS.

# %%
found = citycover.vectorize(product.folder, "areas.gpkg", min_area=100)
print(f"{found.polygons} polygons, {found.square_metres / 1e4:.2f} ha")
