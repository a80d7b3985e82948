"""What became of a reply, in the few kinds that a picture can tell apart; the log's codes are many more.

Every code that the ledger's rules know is here; one of a later version counts as `OTHER`.
"""

from __future__ import annotations

from client.job_story import ABORTS, REASONS
from client.notebook.figures import USED
from ledger.rules_rounds import ADMISSION_CODES

TAKEN = "in the model"
AWAY = "no answer in time"
DECLINED = "declined"
REJECTED = "not admitted"
LEFT = "no longer in the job"
ABORTED = "round gave no model"
OTHER = "other"
KINDS = (TAKEN, AWAY, DECLINED, REJECTED, LEFT, ABORTED, OTHER)  # in the order in which pictures name them

_KIND = {
    USED: TAKEN,
    **dict.fromkeys(("late", "unreachable"), AWAY),
    **dict.fromkeys(("refused", "skipped"), DECLINED),
    **dict.fromkeys((*ADMISSION_CODES, "receipt"), REJECTED),
    **dict.fromkeys(("expired", "removed", "revoked", "withdrawn"), LEFT),
    **dict.fromkeys(ABORTS, ABORTED),
}


def kind(fate: str) -> str:
    """Return which of `KINDS` a fate belongs to."""
    return _KIND.get(fate, OTHER)


def reason(fate: str) -> str:
    """Return a fate in words."""
    if fate == USED:
        return "its update is in the model"
    return REASONS.get(fate) or ABORTS.get(fate) or fate
