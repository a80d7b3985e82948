"""Each rule broken alone, by its name; and the list of rules is the code's, the tests' and FORMAT.md's."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import ledger
from ledger.errors import RuleError, UpgradeError
from ledger.rule_names import RULES, refuse
from tests.ledger import broken_charter, broken_consortium, broken_jobs, broken_receipts, broken_rounds
from tests.ledger.broken_steps import CASES, Case

WRITTEN_IN = (broken_charter, broken_consortium, broken_jobs, broken_receipts, broken_rounds)
SOURCE = Path(ledger.__file__).parent
PARAMETERS = [pytest.param(r, c, id=f"{r}: {what}") for r, cs in CASES.items() for what, c in cs.items()]


@pytest.mark.parametrize(("rule", "case"), PARAMETERS)
def test_only_this_rule_is_broken(rule: str, case: Callable[[], Case]) -> None:
    good, bad = case()
    assert good.take().size > 0
    with pytest.raises(RuleError) as caught:
        bad.take()
    assert caught.value.rule == rule
    assert isinstance(caught.value, UpgradeError) == (rule == "rules.known-version")
    assert "\n" not in str(caught.value)
    assert RULES[rule] in str(caught.value)


def test_every_rule_has_a_case() -> None:
    assert all(module.__doc__ for module in WRITTEN_IN)
    assert sorted(CASES) == sorted(RULES)


def test_the_source_names_every_rule_and_no_other() -> None:
    paths = sorted({*SOURCE.glob("rules*.py"), SOURCE / "view.py"})
    named = {n for p in paths for n in re.findall(r'"([a-z]+\.[a-z]+(?:-[a-z]+)*)"', p.read_text("utf-8"))}
    assert named == set(RULES)


def test_format_md_lists_every_rule_in_the_same_words() -> None:
    text = (SOURCE / "FORMAT.md").read_text("utf-8").partition("\n## Rules\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(.+)` \| (.+) \|$", text, re.MULTILINE)
    assert rows == list(RULES.items())


def test_a_rule_without_a_line_is_our_own_mistake() -> None:
    with pytest.raises(KeyError):
        refuse("no.such-rule", "because")
