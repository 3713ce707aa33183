from pathlib import Path

import pytest

from citycover.errors import ConfigError, ModelError
from citycover.files.toml import read_toml


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"\xef\xbb\xbfa = 1\n")
    assert read_toml(path, "card") == {"a": 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a = ", "is not TOML"),
        (b"\xff\xfe", "is not TOML"),
        (b"a = " + b"[" * 100_000, "nested too deeply"),
        (b"#" * (1 << 21), "larger than 1 MiB"),
    ],
)
def test_what_is_no_toml_is_said_in_the_family_that_was_asked_for(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=f"card .*a.toml {said}|card .*{said}"):
        read_toml(path, "card", ModelError)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_toml(tmp_path / "none.toml", "recipe")
    with pytest.raises(ConfigError, match="Is a directory"):
        read_toml(tmp_path, "recipe")
