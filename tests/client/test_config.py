"""hospital.toml: read once, refused in one line that says what is wrong, where, and what it must be."""

from __future__ import annotations

from pathlib import Path

import pytest

from client import config
from client.errors import ConfigError
from tests.client import hospital_folder


def test_settings_are_read_with_their_defaults(tmp_path: Path) -> None:
    found = hospital_folder.hospital(tmp_path / "alpha")
    assert (found.name, found.ref, found.dataset.size_class) == ("alpha", "alpha/heart", 64)
    assert (found.dataset.epsilon, found.dataset.delta) == ("8", "0.0001")
    assert found.policy.purposes == found.dataset.purposes == ("cardiology-research",)
    assert found.policy.max_epsilon_per_job == "8"
    assert found.dataset.one_row_per_patient is False
    assert found.read_identity_key().name == "alpha"


def test_decimals_may_be_text_or_numbers(tmp_path: Path) -> None:
    text = hospital_folder.hospital(tmp_path / "a", epsilon="2.5", delta="0.00001")
    number = hospital_folder.hospital(tmp_path / "b", epsilon=2.50, delta=1e-5)
    assert (text.dataset.epsilon, text.dataset.delta) == (number.dataset.epsilon, number.dataset.delta)
    assert text.dataset.epsilon == "2.5"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"size_class": 65}, "power of two"),
        ({"size_class": 0}, "size_class"),
        ({"epsilon": -1}, "epsilon"),
        ({"epsilon": 0}, "epsilon"),
        ({"epsilon": 0.001}, "multiple of 0.01"),
        ({"delta": 0.01}, "at most 1/640"),
        ({"delta": "nan"}, "delta"),
        ({"purposes": []}, "purpose"),
        ({"file": ""}, "dataset.file"),
        ({"colour": "red"}, "unknown field 'colour'"),
        ({"one_row_per_patient": "yes"}, "one_row_per_patient"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_field(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        hospital_folder.hospital(tmp_path / "alpha", None, **changes)
    assert "\n" not in str(caught.value)
    assert config.FILE in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("localhost:8443", "localhost", "host:port"),
        ("localhost:8443", "localhost:99999", "host:port"),
        ('approve = "built-in"', 'approve = "always"', "policy.approve"),
        ("[dataset]", "[data]", "dataset"),
        ("charter =", "chart =", "charter"),
        ('"alpha"', '"alpha', "hospital.toml"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    folder = hospital_folder.write(tmp_path / "alpha")
    path = folder / config.FILE
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ConfigError, match=said):
        config.load(folder)


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*hospital\.toml: No such file"):
        config.load(tmp_path / "nowhere")


def test_a_witness_key_is_no_identity_key(tmp_path: Path) -> None:
    found = hospital_folder.hospital(tmp_path / "alpha")
    keys = found.folder / "keys"
    (keys / "identity.key").write_bytes((keys / "witness.key").read_bytes())
    with pytest.raises(ConfigError, match="another use"):
        found.read_identity_key()


def test_an_error_about_a_key_shows_nothing_of_it(tmp_path: Path) -> None:
    found = hospital_folder.hospital(tmp_path / "alpha")
    path = found.folder / "keys" / "identity.key"
    secret = path.read_text()[-20:-2]
    path.write_text(path.read_text().replace("+", "-", 3))
    with pytest.raises(ConfigError) as caught:
        found.read_identity_key()
    assert secret not in str(caught.value)
