import json


def test_every_form_and_precision_of_a_model_is_measured(citycover) -> None:
    flags = ("--window", "128", "--repeats", "1")
    rows = json.loads(citycover("models", "bench", "spectral-rgb", *flags, "--json").out)
    assert {(row["form"], row["precision"]) for row in rows} >= {
        ("as loaded", "fp32"), ("frozen, channels_last", "fp32"), ("frozen, channels_last", "bf16"),
    }  # fmt: skip
    assert all(row["mpx_per_s"] > 0 or row["note"].startswith("cannot run") for row in rows)
    text = citycover("models", "bench", "spectral-rgb", *flags).out
    assert "* is the fastest" in text and text.count("*") >= 2
    assert "what map runs in fp32" in text and "what map runs in bf16" in text


def test_a_window_that_the_model_does_not_take_is_refused(citycover) -> None:
    result = citycover("models", "bench", "nothing-there")
    assert result.code == 2 and "nothing-there" in result.err
