"""Starting and stopping Flower's SuperLink: what goes wrong is said in its own words, and nothing stays behind."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from coordinator.errors import TransportError
from coordinator.superlink import SuperLink, SuperLinkSettings
from coordinator.tls import TlsFiles, ensure_tls


def test_a_superlink_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    tls = ensure_tls(tmp_path / "tls", [], datetime.now(UTC))
    broken = TlsFiles(authority=tls.authority, certificate=tmp_path / "absent.pem", key=tls.key)
    superlink = SuperLink(SuperLinkSettings(directory=tmp_path / "superlink", tls=broken, rounds="os:getcwd"))
    with pytest.raises(TransportError, match=r"(?s)its log says.*ssl-certfile"), superlink:
        pytest.fail("started without a certificate")
    superlink.stop()
    assert (tmp_path / "superlink" / "superexec-secret").stat().st_mode & 0o777 == 0o600
    with pytest.raises(TransportError, match="not running"):
        superlink.nodes()


def test_a_folder_that_cannot_be_written_is_named_in_one_line(tmp_path: Path) -> None:
    tls = ensure_tls(tmp_path / "tls", [], datetime.now(UTC))
    (tmp_path / "file").write_text("")
    directory = tmp_path / "file" / "superlink"
    with (
        pytest.raises(
            TransportError, match=f"cannot be started in {directory}: Not a directory; see to the disk"
        ),
        SuperLink(SuperLinkSettings(directory=directory, tls=tls, rounds="os:getcwd")),
    ):
        pytest.fail("started without a folder")
