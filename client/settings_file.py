"""The text of a member's settings file, every line explained, as `join` writes it; the fields are `settings`."""

from __future__ import annotations

import json

SAMPLE_NAME = "my-dataset"
SAMPLE_PURPOSE = "my-purpose"
_MEMBER = """\
# Who this folder belongs to, and where its consortium is. Written by `wardround {noun} join`.

name = {name}  # this member's name on the record, for ever
coordinator = {coordinator}  # host:port; the only address that is ever connected to
authority = {authority}  # certificate that the coordinator's TLS is checked against; a file beside this one
charter = {charter}  # digest of the log's first entry, as it was compared by telephone
proxy = {proxy}  # "http://proxy.example:3128" where connections must go through one; "" connects directly
"""

_HOSPITAL = """
[dataset]  # what this hospital offers: edit every line, then run `wardround hospital check`
name = "my-dataset"  # its name on the record: lowercase letters, digits and hyphens
kind = "csv"  # how `file` is read: csv, parquet, sql, images, npz or fhir
file = "patients.csv"  # the patients' rows, beside this file or a full path; they never leave this machine
mapping = ""  # file that maps this hospital's columns, units and codes to the dictionary's; "" if they are the same
dictionary = "dictionary.json"  # the data dictionary that the consortium agreed on
epsilon = 8  # all the privacy loss that these patients will ever bear, over all jobs (add/remove one patient)
delta = 0.00001  # at most a tenth of one over the number of patients
size_class = 1024  # the power of two nearest to the number of patients: the only count on the record
purposes = ["my-purpose"]  # what may be done with them, sorted; put on the record
one_row_per_patient = false  # true refuses a file in which a patient has two rows

[policy]  # which jobs this hospital takes part in; nobody else can change it
approve = "ask"  # "ask" a person about every job; "built-in" approves jobs of known models alone; "never" none
researchers = []  # who may propose, by name; empty: any researcher of the consortium
purposes = ["my-purpose"]  # for which purposes, sorted
max_epsilon_per_job = 2  # the most that one job may cost
min_participants = 2  # hospitals that a job must require: with fewer, a model says more about each
smallest_cohort = 1  # do not take part where size_class is below this
hours = []  # local time when it may train, such as ["mon-fri 19:00-06:00"]; empty: always

[limits]  # how much of this machine a job may take
threads = 1  # processor cores
memory_mib = 8192  # working memory
model_seconds = 60  # how long a job's model.py may take to build its model
gpu = false  # true lets it use a GPU

[journal]  # the agent's own log
file = ""  # "" leaves it to whoever started the agent, such as systemd
max_mib = 10  # size at which a new file is begun
keep = 5  # old files that are kept
"""


def explained(*, role: str, name: str, coordinator: str, authority: str, charter: str, proxy: str) -> str:
    """Return hospital.toml, or member.toml of everybody else, with sample values where only the member knows.

    Args:
        role: The member's.
        name: Its name.
        coordinator: host:port.
        authority: File name of the certificate.
        charter: Hex digest.
        proxy: Address of a proxy, or "".
    """
    hospital = role == "hospital"
    head = _MEMBER.format(
        noun="hospital" if hospital else "member",
        name=json.dumps(name),
        coordinator=json.dumps(coordinator),
        authority=json.dumps(authority),
        charter=json.dumps(charter),
        proxy=json.dumps(proxy),
    )
    return head + _HOSPITAL if hospital else head
