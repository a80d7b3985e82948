"""Founding with the real commands over TLS on loopback: invited, joined, compared, signed, running, verified."""

from __future__ import annotations

import re
import stat
from pathlib import Path

from client import config
from tests.end_to_end.consortium_process import HOSPITALS, RESEARCHER, Output, Place, finish, until

GROUPS = re.compile(r"(?:[0-9a-f]{4}  ){3}[0-9a-f]{4}")


def test_founding_by_invitation_with_the_digest_compared(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.init()
    with place.up() as coordinator:
        joining = {name: Output(place.join(name, typed="")) for name in place.invitations}
        shown = {}
        for name, output in joining.items():
            output.wait_for("sixteen groups")
            shown[name] = "".join("".join(GROUPS.findall(output.text())).split())
        assert len(set(shown.values())) == 1  # what people read to each other
        (digest,) = set(shown.values())
        assert digest == place.draft()
        for output in joining.values():
            assert output.process.stdin is not None
            output.process.stdin.write(f"{digest[-16:-8]} {digest[-8:]}\n")
            output.process.stdin.flush()
        for output in joining.values():
            assert "has joined" in output.succeed()
        coordinator.wait_for("founded: entry 0")
        coordinator.wait_for("ready for hospitals")
        assert place.records()[0].digest() == digest
        for name in place.invitations:
            assert place.charter_of(name) == digest
            assert not (place.member(name) / "joining.json").exists()
            for path in place.member(name).rglob("*"):
                assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
        for name in HOSPITALS:
            assert config.load(place.member(name)).policy.approve == "ask"
        assert (place.member(RESEARCHER) / "member.toml").exists()
        until(lambda: len(list((place.coordinator / "nodes").glob("*.pub"))) == 3, "the nodes' keys")
        assert "has joined already" in finish(place.join("northgate"), 1)
