"""Sentinel-2 Level-2A as the networks for it meet it: names of bands, statistics, the baseline offset.

Statistics are in digital numbers (reflectance x 10000) of BigEarthNet patches:

- `BIGEARTHNET_V1`: Sumbul et al. 2019/2021, https://arxiv.org/abs/2105.07921, the numbers that most public
  models of that data set use;
- `BIGEARTHNET_V2`: train split of reBEN, Clasen et al. 2024, https://arxiv.org/abs/2407.03653, after nearest
  resampling to 120 x 120 px.

Products of processing baseline 04.00 and later (from January 2022) carry +1000 in every digital number, the
negative of their `BOA_ADD_OFFSET`; BigEarthNet does not. A network for such products adds 1000 to the means.
"""

from __future__ import annotations

from dataclasses import dataclass

BAND_NAMES: dict[str, str] = {
    "B01": "coastal",
    "B02": "blue",
    "B03": "green",
    "B04": "red",
    "B05": "rededge1",
    "B06": "rededge2",
    "B07": "rededge3",
    "B08": "nir",
    "B8A": "nir08",
    "B09": "watervapour",
    "B11": "swir16",
    "B12": "swir22",
}
"""Sentinel-2's band -> the common name that cards use. Level 2A has no B10 (cirrus)."""

OFFSET_TAG = (
    "Sentinel-2 L2A digital numbers, reflectance x 10000 without offset; imagery of processing baseline "
    "04.00 or later carries +1000: subtract it, or build the network with boa_offset=1000"
)
"""What a card says about digital numbers."""


def card_bands(bands: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Entries of a card's band group: common name, then Sentinel-2's own."""
    return tuple((BAND_NAMES[band], band) for band in bands)


@dataclass(frozen=True, slots=True)
class BandStatistics:
    """Mean and standard deviation of each band, in digital numbers."""

    means: dict[str, float]
    stds: dict[str, float]

    def of(self, bands: tuple[str, ...], offset: float = 0.0) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Means and standard deviations of `bands` in imagery whose numbers lie `offset` higher."""
        return tuple(self.means[b] + offset for b in bands), tuple(self.stds[b] for b in bands)


def _statistics(means: str, stds: str) -> BandStatistics:
    """From two rows in the order of `BAND_NAMES`."""
    return BandStatistics(
        means=dict(zip(BAND_NAMES, map(float, means.split()), strict=True)),
        stds=dict(zip(BAND_NAMES, map(float, stds.split()), strict=True)),
    )


BIGEARTHNET_V1 = _statistics(
    "340.768 429.943 614.217 590.236 950.684 1792.463 2075.468 2218.946 2266.460 2246.061 1594.427 1009.327",
    "554.813 572.416 582.879 675.887 729.898 1096.015 1273.454 1365.456 1356.138 1302.329 1079.191 818.867",
)

BIGEARTHNET_V2 = _statistics(
    "361.077 438.372 614.056 588.410 942.843 1769.932 2049.552 2193.292 2235.557 2241.455 1568.227 997.732",
    "575.069 607.027 603.297 684.569 738.433 1100.456 1275.805 1369.372 1356.544 1316.393 1070.161 813.528",
)
