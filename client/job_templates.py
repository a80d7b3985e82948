"""What `wardround job new` writes: a job that runs as it is, for each template, to be changed line by line."""

from __future__ import annotations

from dataclasses import replace

from client.job_toml import JobDraft
from client.reviewed import CUSTOM

HEADING = """\
A training job for Wardround. Change the lines below, then
  wardround job check DIR     try it on made-up patients, and see what it costs
  wardround job submit DIR --member FOLDER     sign it and propose it to the hospitals
Every line is part of what the hospitals approve: none can be changed afterwards.
"""
MODEL = '''\
"""A model for Wardround: `build_model` returns any torch module that computes one row of outputs for each patient.

Every hospital reads this file before it runs it; it supplies the model alone. The loss, the training loop and the
noise are Wardround's. BatchNorm is refused, because it mixes patients: use GroupNorm or LayerNorm.
"""

from torch import nn


def build_model(*, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Return the model for patients of `input_shape`, with so many outputs; its first weights are ours."""
    (features,) = input_shape
    return nn.Sequential(nn.Linear(features, 16), nn.Tanh(), nn.Linear(16, outputs))
'''
DICTIONARY = """\
{
  "type": "wardround-dictionary/1",
  "name": "my-study",
  "source": "who defined these variables, and where it is written down",
  "patient": "patient",
  "label": {
    "name": "readmitted",
    "negative": ["no"],
    "positive": ["yes"],
    "meaning": "back in hospital within 30 days"
  },
  "variables": [
    {
      "name": "age",
      "kind": "numeric",
      "unit": "a",
      "lower": "0",
      "upper": "110",
      "source": "plausible ages"
    },
    {
      "name": "sex",
      "kind": "binary",
      "levels": ["female", "male"]
    },
    {
      "name": "admission",
      "kind": "categorical",
      "levels": ["planned", "emergency", "transfer"]
    }
  ]
}
"""
_TABLE = JobDraft(
    name="breast-cancer",
    purpose="cancer-research",
    dictionary="breast-cancer",
    min_participants=3,
    rounds=30,
    model="logistic-regression",
    learning_rate="0.3",
    max_grad_norm="0.5",
    epsilon="3",
    heldout_epsilon="3",
)
DRAFTS: dict[str, JobDraft] = {
    "blank": replace(
        _TABLE, name="my-study", purpose="health-services-research", dictionary="dictionary.json"
    ),
    "breast-cancer": _TABLE,
    "custom-model": replace(_TABLE, name="own-model", model=CUSTOM),
    "heart-disease": replace(
        _TABLE, name="heart-disease", purpose="cardiology-research", dictionary="heart-disease"
    ),
}


def files(template: str) -> dict[str, str]:
    """Return the further files of a template, by name. Raises KeyError for an unknown one."""
    draft = DRAFTS[template]
    found = {}
    if draft.model == CUSTOM:
        found["model.py"] = MODEL
    if draft.dictionary.endswith(".json"):
        found[draft.dictionary] = DICTIONARY
    return found
