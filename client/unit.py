"""The systemd unit of a hospital's agent: what it needs, from the hospital's settings."""

from __future__ import annotations

import sys
from pathlib import Path

import client
from client.config import Hospital
from ledger.unit import Service, command

AGENT_MIB = 2048  # for the agent itself and the building of a model, besides the worker
AGENT_TASKS = 128  # threads and processes, besides the worker's


def service(hospital: Hospital, user: str) -> Service:
    """Return what the agent's unit must allow."""
    journal = (hospital.folder / hospital.journal.file).parent if hospital.journal.file else hospital.folder
    sources = (hospital.data_file, hospital.folder / hospital.dataset.mapping, hospital.dictionary_file)
    code = (
        Path(sys.prefix),
        Path(sys.base_prefix),
        *(Path(place).resolve().parent for place in client.__path__),
    )
    limits = hospital.limits
    return Service(
        description=f"Wardround agent of {hospital.name}",
        written_by=f"wardround hospital unit {hospital.folder}",
        command=command("hospital", "run", str(hospital.folder), executable=Path(sys.executable)),
        user=user,
        folder=hospital.folder,
        writes=() if journal.is_relative_to(hospital.folder) else (journal,),
        reads=tuple(p for p in (*code, *sources) if not p.is_relative_to(hospital.folder)),
        devices=limits.gpu,
        reloads=True,
        memory_mib=limits.memory_mib + AGENT_MIB,
        processors=limits.threads + 1,
        tasks=AGENT_TASKS + 8 * limits.threads,
    )
