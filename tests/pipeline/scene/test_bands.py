import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import make_card

from citycover.errors import SceneError
from citycover.scene.bands import fold, name_bands
from citycover.scene.choose import match_bands, pick_bands

RGB = [("red", "B04"), ("green", "B03"), ("blue", "B02")]
RGBN = [*RGB, ("nir", "B08", "B8A")]
GRAY = ("gray",)
CARD = make_card(64, 0, 0)


def single(*files):
    return [band for file in files for band in name_bands(file, (None,), GRAY)]


def names(file, count=1, descriptions=None, colours=None):
    bands = name_bands(
        file, descriptions or (None,) * count, colours or ("gray", *("undefined",) * (count - 1))
    )
    return [b.names for b in bands]


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("T29UNU_20221005T115411_B02_60m.jp2", ("blue", "b02")),
        ("T29UNU_20221005T115411_B8A_60m.jp2", ("nir08", "b8a")),
        ("S2A_MSIL2A_20170617T113321_36_85_B12.tif", ("swir22", "b12")),
        ("LC80320272014265LGN00_B5.TIF", ("nir",)),
        ("LC09_L2SP_032027_20220101_20220102_02_T1_SR_B4.TIF", ("red",)),
        ("LE07_L1TP_032027_20000101_20170101_01_T1_B4.TIF", ("nir",)),
        ("LT05_L1TP_032027_20000101_20170101_01_T1_B3.TIF", ("red",)),
        ("landsat_b2.tif", ("blue",)),
        ("HLS.L30.T32TQM.2021001T100000.v2.0.B05.tif", ("nir",)),
        ("HLS.S30.T32TQM.2021001T100000.v2.0.B05.tif", ("rededge1", "b05")),
        ("SpaceNet_AOI_2-WV03-N.tif", ("nir",)),
        ("city_red.tif", ("red",)),
        ("NAIP-VA-b1.tiff", ()),
        ("sr_b4_20200829.tif", ()),
        ("red_river.tif", ()),
        ("red.tif", ("red",)),
        ("B02.jp2", ("blue", "b02")),
        ("B8A.tif", ("nir08", "b8a")),
        ("nir.tif", ("nir",)),
        ("B4.tif", ()),
        ("B11.tif", ()),
        ("2020-06-01-00_00_2020-06-01-23_59_Sentinel-2_L2A_B02_(Raw).tiff", ("blue", "b02")),
        ("scene.tif", ()),
    ],
)
def test_file_name_tells_the_band_only_where_its_meaning_is_certain(file, expected):
    assert names(file) == [expected]


def test_descriptions_come_before_everything_else():
    bands = names(
        "x.tif", descriptions=("blue", "green", "red", "nir"), colours=("red", "green", "blue", "undefined")
    )
    assert bands == [("blue",), ("green",), ("red",), ("nir",)]


def test_descriptions_with_b8a_are_sentinel_2():
    bands = names("chip.tif", descriptions=("B2", "B4", "B8", "B8A"), colours=("gray",) * 4)
    assert bands == [("blue", "b02"), ("red", "b04"), ("nir", "b08"), ("nir08", "b8a")]


def test_naip_and_planet_files_are_known_by_their_name():
    rgbn = ["red", "green", "blue", "nir"]
    undefined, alpha = ("red", "green", "blue", "undefined"), ("red", "green", "blue", "alpha")
    assert [b[0] for b in names("m_4709963_se_14_1_20120731.tif", 4)] == rgbn
    assert [b[0] for b in names("m_3211605_ne_11_060_20200415.tif", 4, colours=alpha)] == rgbn
    planet = names("20170831_172754_101c_3B_AnalyticMS.tif", 4, colours=undefined)
    assert [b[0] for b in planet] == ["blue", "green", "red", "nir"]


@pytest.mark.parametrize("tools", ["", "_harmonized_clip", "_clip_reproject", "_clip_file_format"])
def test_planet_files_keep_their_order_through_the_tools_of_orders(tools):
    tagged = ("red", "green", "blue", "undefined")
    assert match_bands(
        CARD, RGBN, name_bands(f"20240601_1_24_3B_AnalyticMS_SR{tools}.tif", (None,) * 4, tagged)
    ) == (2, 1, 0, 3)
    eight = f"20240601_1_24_3B_AnalyticMS_SR_8b{tools}.tif"
    for descriptions in (
        (None,) * 8, ("coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir")
    ):  # fmt: skip
        scene = name_bands(eight, descriptions, ("coastal", *("undefined",) * 7))
        assert match_bands(CARD, [*RGBN, ("coastal",), ("rededge",)], scene) == (5, 3, 1, 7, 0, 6)


@pytest.mark.parametrize(
    "descriptions",
    [
        ("BAND_C", "BAND_B", "BAND_G", "BAND_Y", "BAND_R", "BAND_RE", "BAND_N", "BAND_N2"),
        ("Coastal Blue", "Blue", "Green", "Yellow", "Red", "Red Edge", "Near-IR1", "Near-IR2"),
        ("Coastal", "Blue", "Green", "Yellow", "Red", "RedEdge", "NIR1", "NIR2"),
    ],
)
def test_bands_are_found_as_maxar_writes_them(descriptions):
    scene = name_bands("10300100_MUL.tif", descriptions, ("gray", *("undefined",) * 7))
    wanted = [*RGBN, ("coastal",), ("yellow",), ("rededge",), ("nir2",)]
    assert match_bands(CARD, wanted, scene) == (4, 2, 1, 6, 0, 3, 5, 7)


def test_bands_are_put_in_the_order_of_the_card():
    scene = single("x-WV03-B.tif", "x-WV03-G.tif", "x-WV03-N.tif", "x-WV03-R.tif")
    assert match_bands(CARD, RGBN, scene) == (3, 1, 0, 2)


def test_b8a_stands_in_for_near_infrared_only_where_b08_is_not_there():
    files = ["T29UNU_1_B02.jp2", "T29UNU_1_B03.jp2", "T29UNU_1_B04.jp2", "T29UNU_1_B8A.jp2"]
    assert match_bands(CARD, [*RGB, ("nir",)], single(*files)) == (2, 1, 0, 3)
    assert match_bands(CARD, RGBN, single(*files, "T29UNU_1_B08.jp2")) == (2, 1, 0, 4)


def test_missing_band_names_what_is_there_what_is_needed_and_what_to_do():
    scene = name_bands("x.tif", (None,) * 4, ("red", "green", "blue", "undefined"))
    with pytest.raises(SceneError) as error:
        match_bands(CARD, RGBN, scene)
    text = str(error.value)
    assert "scene has 4 bands (red, green, blue, unnamed)" in text
    assert "needs red, green, blue, nir" in text
    assert "if the bands do lie in the order red, green, blue, nir, pass --bands 1,2,3,4" in text
    assert "names come from descriptions, colours or file names" in text


def test_alpha_is_proposed_last():
    scene = name_bands("x.tif", (None,) * 4, ("red", "green", "blue", "alpha"))
    with pytest.raises(SceneError, match="pass --bands 1,2,3,4"):
        match_bands(CARD, RGBN, scene)
    with pytest.raises(SceneError, match="give the files that hold them"):
        match_bands(CARD, RGBN, scene[:3])


def test_one_name_answered_twice_is_in_doubt():
    scene = [*name_bands("a.tif", (None,) * 3, ("red", "green", "blue"))] * 2
    with pytest.raises(SceneError, match="both answer to 'red'"):
        match_bands(CARD, RGB, scene)


def test_a_single_nameless_band_serves_a_model_of_one_band():
    assert match_bands(CARD, [("elevation",)], single("dem.tif")) == (0,)


def test_bands_option_takes_numbers_names_and_descriptions():
    scene = [*name_bands("x.tif", ("Layer one", None), ("gray", "undefined")), *single("T29UNU_1_B04.jp2")]
    assert pick_bands(["2", "B4", "Layer one"], RGB, scene, "m") == (1, 2, 0)
    assert pick_bands(["red", "R", "3"], RGB, scene, "m") == (2, 2, 2)
    assert pick_bands(["B4"], [("red",)], single("landsat_b4.tif"), "m") == (0,)
    assert pick_bands(["b4"], [("red",)], single("NAIP-VA-b4.tiff"), "m") == (0,)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (["1", "2"], "names 2 bands .* needs 3: red, green, blue"),
        (["1", "2", "9"], "asks for band 9; the scene has 3"),
        (["1", "2", "0"], "asks for band 0"),
        (["1", "2", "B9"], "no band of the scene answers to it"),
    ],
)
def test_bands_option_that_does_not_fit_is_refused(chosen, message):
    scene = name_bands("x.tif", (None,) * 3, ("red", "green", "blue"))
    with pytest.raises(SceneError, match=message):
        pick_bands(chosen, RGB, scene, "m")


def test_bands_option_that_means_several_bands_is_refused():
    scene = [*name_bands("a.tif", (None,) * 3, ("red", "green", "blue"))] * 2
    with pytest.raises(SceneError, match="bands number 1, 4"):
        pick_bands(["red", "green", "blue"], RGB, scene, "m")


def test_fold_ignores_case_punctuation_and_leading_zeros():
    assert fold("B04") == fold("b4") == fold("B-4")
    assert fold("Near-Infrared") == fold("NIR") == fold("N") == "nir"
    assert fold("B8A") != fold("B08")


@given(st.permutations(["red", "green", "blue", "nir", "swir16", None, "height"]))
def test_bands_are_found_wherever_they_lie(order):
    scene = name_bands("x.tif", order, ("undefined",) * len(order))
    found = match_bands(CARD, RGBN, scene)
    assert [order[place] for place in found] == ["red", "green", "blue", "nir"]
    numbers = [str(place + 1) for place in found]
    assert pick_bands(numbers, RGBN, scene, "m") == found
