# %% [markdown]
# # Learn from coarse labels, and map with them
#
# Free land-cover rasters have pixels of 10 m, the image has 1 m. A small network learns from the labels of this
# very place, maps the image with the labels as evidence beside it, and is judged on labels that were kept back.
# Here the truth is known, too, because the city is synthetic.

# %%
SIZE = 512  # pixels of 1 m
SEED = 8  # of the city: houses beside a park
EPOCHS = 8  # of 64 chips each; the recipe's own training is longer, and gives a better map

from pathlib import Path

import citycover
from citycover.synth.write import write_city
from citycover_models.sharpen.request import SharpenRequest
from citycover_models.sharpen.sharpen import sharpen

write_city(Path("city"), SIZE, SEED)
request = SharpenRequest(
    citycover.Imagery(("city/image.tif",)),
    citycover.LabelRequest((Path("city/labels_10m.tif"),), "city"),
    Path("product"),
    changes=(f"epochs={EPOCHS}", "chips_per_epoch=64"),
)
done = sharpen(request)
show(done.picture, "image, labels, map")

# %% [markdown]
# How far were the labels trusted, and how good are labels and map against the truth?

# %%
from citycover.classes.legend import read_legend
from citycover.evaluate.rasters import compare_rasters

labels = done.product.run.labels
print(f"{labels.trust:.0%} of the labels were reckoned right")
legend = read_legend("city")
for name in ("city/labels_10m.tif", "product/landcover.tif"):
    matrix = compare_rasters(Path(name), Path("city/truth.tif"), legend)
    print(f"{name:<24} overall accuracy {matrix.overall_accuracy:.1%}, mean IoU {matrix.miou:.1%}")

# %% [markdown]
# `product/training/model.pt` is a model file like any other: it maps other images of the same bands.

# %%
write_city(Path("next"), SIZE, seed=15)
other = citycover.map_scene(
    citycover.MapRequest(citycover.Imagery(("next/image.tif",)), "product-next", str(done.model))
)
show(other.folder / "preview.png", "another city by the same network, without labels")
