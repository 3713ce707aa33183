"""A Sentinel-2 product around real images that lie loose."""

from __future__ import annotations

from pathlib import Path


def metadata_of(level: str, offset: int) -> str:
    """What the metadata of a product say of its numbers: reflectance x 10000, and an offset of each band."""
    kind, words = ("User_Product", "BOA") if level == "2A" else ("User_Product", "RADIO")
    quantity = "BOA_QUANTIFICATION_VALUE" if level == "2A" else "QUANTIFICATION_VALUE"
    offsets = "".join(f'<{words}_ADD_OFFSET band_id="{k}">{offset}</{words}_ADD_OFFSET>' for k in range(13))
    return (
        f'<?xml version="1.0"?><n1:Level-{level}_{kind} xmlns:n1="https://psd-14.sentinel2.eo.esa.int">'
        "<PRODUCT_START_TIME>2022-10-05T11:54:11.024Z</PRODUCT_START_TIME>"
        f'<{quantity} unit="none">10000</{quantity}>{offsets}</n1:Level-{level}_{kind}>'
    )


def safe_of(images: Path, folder: Path) -> Path:
    """A `.SAFE` folder whose images are those of a folder, by links."""
    place = folder / "S2A_MSIL2A_20221005T115411_N0400_R023_T29UNU_20221005T160000.SAFE"
    for file in sorted(images.glob("*.jp2")):
        gsd = file.stem.rpartition("_")[2]
        to = place / "GRANULE" / "L2A_T29UNU_A038052_20221005T115411" / "IMG_DATA" / f"R{gsd}" / file.name
        to.parent.mkdir(parents=True, exist_ok=True)
        to.symlink_to(file)
    (place / "MTD_MSIL2A.xml").write_text(metadata_of("2A", -1000))
    return place
