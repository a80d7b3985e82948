"""What PROTOCOL.md says of a running job's participants, remembered without the rules' help."""

from __future__ import annotations


def text(hundredths: int) -> str:
    """A number of hundredths as records spell it."""
    whole, rest = divmod(hundredths, 100)
    return f"{whole}.{rest:02}".rstrip("0").rstrip(".")


class Memory:
    """What one job's history implies for its next round."""

    def __init__(self, hospitals: list[str], expires: dict[str, int]) -> None:
        self.hospitals = hospitals
        self.expires = expires  # when the job or the hospital's agreement ends
        self.round, self.last_time = 1, 0
        self.keys: dict[str, str] = {}  # of the members at the last start, round or abort
        self.withdrawn: set[str] = set()
        self.skipped: set[str] = set()
        self.spent = dict.fromkeys(hospitals, 0)  # hundredths

    def code(self, hospital: str, revoked: set[str]) -> str:
        """Why a hospital cannot give a receipt, as PROTOCOL.md says it; "" where it can."""
        if hospital in self.withdrawn:
            return "withdrawn"
        if self.keys.get(hospital) in revoked:
            return "revoked"
        if hospital not in self.keys:
            return "removed"
        if self.last_time >= self.expires[hospital]:
            return "expired"
        return "skipped" if hospital in self.skipped else ""
