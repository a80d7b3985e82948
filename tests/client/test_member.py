"""A member's folder: read from member.toml, or from the first lines of a hospital's settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from client import config, member
from client.errors import ConfigError
from ledger import example
from tests.client import hospital_folder

TEXT = 'name = "researcher"\ncoordinator = "localhost:8443"\nauthority = "ca.pem"\n'


def test_a_hospitals_folder_is_a_members(tmp_path: Path) -> None:
    hospital = hospital_folder.hospital(tmp_path / "alpha")
    found = member.load(tmp_path / "alpha")
    assert (found.name, found.coordinator, found.charter) == ("alpha", "localhost:8443", hospital.charter)
    assert found.read_identity_key() == hospital.read_identity_key()


def test_a_researchers_folder(tmp_path: Path) -> None:
    (tmp_path / member.FILE).write_text(f'{TEXT}charter = "{example.charter().digest()}"\n')
    assert member.load(tmp_path).proxy == ""


@pytest.mark.parametrize(
    ("line", "said"),
    [("", "charter"), ('charter = "1"\n', "charter"), ('colour = "red"\n', "colour|charter")],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / member.FILE).write_text(TEXT + line)
    with pytest.raises(ConfigError, match=said) as caught:
        member.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_no_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{member.FILE}: No such file"):
        member.load(tmp_path / "nowhere")
    assert not (tmp_path / config.FILE).exists()
