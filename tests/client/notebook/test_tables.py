"""Tables: the same columns and types at every time, and every figure in its place once."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.errors import MissingExtraError
from client.job_story import ABORTS, REASONS
from client.notebook import fates, tables
from client.notebook.figures import USED, Figures, Part, Spent
from ledger.rules_rounds import ABORT_CODES, ABSENT_CODES, ADMISSION_CODES, KNOWN_CODES
from tests.client.notebook.made_figures import EMPTY, made, without_measure

Table = Callable[[Figures], "pd.DataFrame"]
ALL: list[tuple[Table, tables.Columns]] = [
    (tables.metrics, tables.METRICS),
    (tables.privacy, tables.PRIVACY),
    (tables.participation, tables.PARTICIPATION),
    (tables.geometry, tables.GEOMETRY),
    (tables.budgets, tables.BUDGETS),
]


@pytest.mark.parametrize(("table", "columns"), ALL)
@pytest.mark.parametrize("figures", [EMPTY, made(3, done=2), made(8)], ids=["empty", "begun", "done"])
def test_columns_and_types_are_the_same_at_every_time(
    table: Table, columns: tables.Columns, figures: Figures
) -> None:
    found = table(figures)
    assert list(found.columns) == list(columns)
    assert found.dtypes.equals(table(made(8)).dtypes)
    assert {name: str(dtype) for name, dtype in found.dtypes.items()} == columns


def test_an_unmeasurable_model_keeps_its_row() -> None:
    found = tables.metrics(without_measure(made(4), 10)).set_index("round")
    assert found.loc[10, ["auroc", "auroc_low", "log_loss", "brier_high", "patients"]].isna().all()
    whole = found.drop(10)
    assert (whole.auroc_low < whole.auroc).all()
    assert (whole.auroc < whole.auroc_high).all()
    assert list(found.trained) == [0, 4, 9, 14, 19, 20]


def test_privacy_is_stated_by_side_and_never_added_up() -> None:
    spent = (
        Spent(round=1, hospital="a", side="heldout", epsilon=0.5),
        Spent(round=1, hospital="a", side="training", epsilon=1.25),
        Spent(round=1, hospital="stranger", side="training", epsilon=1.0),
    )
    budget = replace(made(1).budgets[0], hospital="a", job_epsilon=2.5, lifetime_spent=None)
    figures = replace(EMPTY, hospitals=("a",), spent=spent, budgets=(budget,))
    found = tables.privacy(figures)
    assert list(found.share[:2]) == [0.2, 0.5]
    assert math.isnan(found.share[2])  # no budget is known of this hospital
    kept = tables.budgets(figures)
    assert kept.job_spent[0] == 1.25
    assert math.isnan(kept.lifetime_spent[0])


def test_a_fate_is_said_in_words_and_counts_as_used_only_when_it_is() -> None:
    parts = tuple(
        Part(round=1, hospital=f"h{i}", fate=f) for i, f in enumerate((USED, "late", "never-heard-of"))
    )
    found = tables.participation(replace(EMPTY, parts=parts))
    assert list(found.used) == [True, False, False]
    assert list(found.kind) == [fates.TAKEN, fates.AWAY, fates.OTHER]
    assert list(found.reason) == ["its update is in the model", REASONS["late"], "never-heard-of"]


def test_every_code_of_the_ledgers_rules_has_a_kind() -> None:
    codes = {*ADMISSION_CODES, *KNOWN_CODES, *ABSENT_CODES, *ABORT_CODES, *REASONS, *ABORTS}
    assert {code for code in codes if fates.kind(code) == fates.OTHER} == set()
    assert {fates.kind(code) for code in codes} | {fates.TAKEN, fates.OTHER} == set(fates.KINDS)


@settings(max_examples=20)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(0, 6), st.integers(0, 9))
def test_every_figure_is_in_its_table_once(hospitals: int, rounds: int, done: int, seed: int) -> None:
    figures = made(hospitals, rounds, min(done, rounds), seed=seed)
    assert len(tables.metrics(figures)) == len(figures.measured)
    assert len(tables.participation(figures)) == len(figures.parts)
    used = tables.participation(figures).query("used")[["round", "hospital"]]
    pulled = tables.geometry(figures)[["round", "hospital"]]
    assert used.reset_index(drop=True).equals(pulled)
    spent = tables.privacy(figures)
    assert spent.epsilon.sum() == pytest.approx(sum(s.epsilon for s in figures.spent))
    assert set(tables.budgets(figures).hospital) == set(figures.hospitals)


def test_without_pandas_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        MissingExtraError, match=r"^tables are made with pandas: pip install 'wardround\[notebook\]'$"
    ):
        tables.metrics(EMPTY)
