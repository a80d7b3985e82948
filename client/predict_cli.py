"""`wardround predict`: score new patients with a released model. Parses, calls one function, prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from client.predict import load_model
from client.predict import predict as score

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A released model.safetensors.")],
    patients: Annotated[Path, typer.Argument(metavar="CSV", help="A file with the model's input columns.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """Print each patient's probability of the positive class, by the scaling that comes with the model.

    Example: wardround predict runs/model.safetensors patients.csv
    """
    scores = score(load_model(model), patients)
    if as_json:
        rows = [{"row": s.row, "probability": s.probability, "problem": s.problem} for s in scores]
        typer.echo(json.dumps(rows, indent=2))
        return
    for s in scores:
        typer.echo(f"{s.row}\t{s.problem if s.probability is None else f'{s.probability:.4f}'}")
