"""The operator's guide says what the code does: commands, files, endpoints, figures, exit statuses."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

from prometheus_client import generate_latest

from coordinator import backup, config, openapi
from coordinator.config import CoordinatorConfig
from coordinator.endpoint import WHO, Endpoint
from coordinator.endpoints import ENDPOINTS
from coordinator.figures import TOKEN, Figures
from coordinator.setup import Plan, init
from ledger.unit import PERSON, STOPPED, TEMPORARY, USAGE
from tests.coordinator.ward import Ward
from tests.test_help import COMMANDS, parse

GUIDE = (Path(__file__).parents[2] / "coordinator" / "README.md").read_text()


def section(heading: str) -> str:
    return GUIDE.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def row(endpoint: Endpoint) -> str:
    query = [p.name if p.required else f"[{p.name}]" for p in endpoint.parameters if p.query]
    asked = endpoint.path + (f"?{'&'.join(query)}" if query else "")
    return f"| `{endpoint.method} {asked}` | {openapi.who(endpoint)} | {endpoint.summary} |"


def test_the_table_of_endpoints_is_the_one_that_the_service_is_made_of() -> None:
    table = GUIDE.partition("<!-- endpoints: begin -->\n")[2].partition("<!-- endpoints: end -->")[0]
    head = ["| request | who may | what it does |", "|---|---|---|"]
    assert table.splitlines() == [*head, *map(row, ENDPOINTS)]
    assert {e.who.kind for e in ENDPOINTS} == set(WHO)


def test_every_command_that_it_shows_is_one_and_takes_what_is_shown() -> None:
    shown = [
        line.partition("wardround ")[2]
        for block in re.findall(r"```text\n(.*?)```", GUIDE, re.DOTALL)
        for line in block.splitlines()
        if "wardround " in line and not line.startswith(("useradd", "chown", "system"))
    ]
    assert len(shown) >= 10
    for line in shown:
        parse(f"wardround {line}")
    for inline in re.findall(r"`wardround ([a-z]+ [a-z-]+)", GUIDE):
        assert inline in COMMANDS


def test_the_commands_from_nothing_to_running_are_four_and_counted() -> None:
    lines = re.findall(r"```text\n(.*?)```", GUIDE, re.DOTALL)[0].splitlines()
    assert [line[0] for line in lines] == ["1", "2", "3", "4"]
    assert "## From nothing to a running consortium: four commands" in GUIDE


def test_every_file_of_a_new_folder_and_of_the_settings_is_explained(tmp_path: Path) -> None:
    rows = section("The folder")
    folder = tmp_path / "heart"
    plan = Plan(
        name="heart", origin="w.example/heart", public_name="localhost", port=8443, host="127.0.0.1",
        max_dishonest=0, invite=(("northgate", "hospital"),), recovery=(), days=1,
    )  # fmt: skip
    init(folder, plan, 1_790_000_000)
    for path in folder.rglob("*"):
        if path.is_file():
            assert f"`{path.relative_to(folder)}`" in rows
    for name in ("log", "blobs", "nodes", "uploads", "runs"):
        assert f"`{getattr(CoordinatorConfig(directory=folder, port=1), name).name}/`" in rows
    assert f"`keys/{TOKEN}`" in rows
    assert config.FILE in rows
    kept = [line.split("|") for line in rows.splitlines() if line.startswith("| `")]
    left_out = {
        name.strip("` /") for cells in kept if cells[3].strip() == "no" for name in cells[1].split(",")
    }
    assert left_out == set(backup._SKIPPED) - {"log"}


def test_the_settings_that_it_shows_are_settings(tmp_path: Path) -> None:
    [text] = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
    shown = tomllib.loads(text)
    CoordinatorConfig(directory=tmp_path, port=1, **shown)
    assert set(shown) <= {field.name for field in fields(CoordinatorConfig)}


def test_the_exit_statuses_are_those_of_the_code() -> None:
    found = [int(status) for status in re.findall(r"^\| (\d+) \|", section("systemd"), re.MULTILINE)]
    assert found == [STOPPED, PERSON, USAGE, TEMPORARY]


def test_the_figures_that_it_explains_are_shown(tmp_path: Path) -> None:
    figures = Figures(Ward(tmp_path / "ward").sequencer, tmp_path, lambda: {"rounds": 1.0}, lambda: 3)
    figures.count("health", 200)
    names = re.findall(r"^# TYPE (wardround_\w+)", generate_latest(figures._registry).decode(), re.MULTILINE)
    shown = {name for name in names if not name.endswith("_created")}
    assert set(re.findall(r"`(wardround_\w+)`", section("Watching it"))) == shown


def test_every_answer_of_health_is_explained() -> None:
    health = next(endpoint for endpoint in ENDPOINTS if endpoint.name == "health")
    explained = re.findall(r"^\| `([a-z-]+)` \|", section("Watching it"), re.MULTILINE)
    assert sorted(explained) == health.schema["properties"]["status"]["enum"]
