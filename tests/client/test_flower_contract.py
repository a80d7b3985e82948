"""What node and ServerApp rely on inside flwr is still there: internal API, held by version and by these tests."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, Metadata
from flwr.common.constant import HEARTBEAT_MIN_INTERVAL, HEARTBEAT_PATIENCE, SUPERLINK_NODE_ID
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto import control_pb2, fleet_pb2, heartbeat_pb2, message_pb2, runtime_pb2
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID, TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.inflatable import inflatable_object, inflatable_utils
from flwr.supercore.inflatable.inflatable_object import get_object_tree, iterate_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.protobuf.client import ProtobufClient
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid import HttpGrid
from flwr.superlink.runtime import run_serverapp
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from client.flower_connection import HEARTBEAT_SECONDS
from client.flower_message import from_proto, pack, unpack, without_content
from coordinator import server_app, superlink
from coordinator.bundle import MAX_SIZE, bundle
from coordinator.errors import SettingError

ROOT = Path(superlink.__file__).parent.parent


def test_the_pinned_version_is_the_one_installed() -> None:
    assert version("flwr") == "1.41.0"
    assert '"flwr==1.41.0"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("client", "methods"),
    [
        (
            FleetHttpClient,
            [
                *("ActivateNode", "DeactivateNode", "SendNodeHeartbeat", "PullMessages", "PushMessages"),
                *("PullObject", "PushObject", "ConfirmMessageReceived"),
            ],
        ),
        (RuntimeHttpClient, ["AcquireTask", "PullMessages", "PullObject", "ConfirmMessageReceived"]),
        (
            ControlHttpClient,
            ["RegisterNode", "UnregisterNode", "ListNodes", "StartRun", "StopRun", "ListRuns"],
        ),
    ],
)
def test_a_client_has_the_methods_called(client: type[ProtobufClient], methods: list[str]) -> None:
    for name in methods:
        assert list(inspect.signature(getattr(client, name)).parameters) == ["self", "request"]
    expected = ["server_address", "insecure", "root_certificates", "interceptors", "retry_invoker"]
    assert list(inspect.signature(client.from_server_address).parameters) == expected


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (fleet_pb2.ActivateNodeRequest, {"public_key", "heartbeat_interval"}),
        (fleet_pb2.DeactivateNodeRequest, {"node_id"}),
        (fleet_pb2.PullMessagesRequest, {"node"}),
        (fleet_pb2.PullMessagesResponse, {"messages_list", "message_object_trees"}),
        (
            fleet_pb2.PushMessagesRequest,
            {"node", "messages_list", "message_object_trees", "clientapp_runtime_list"},
        ),
        (fleet_pb2.PushMessagesResponse, {"objects_to_push", "session_id"}),
        (heartbeat_pb2.SendNodeHeartbeatRequest, {"node", "heartbeat_interval"}),
        (message_pb2.ObjectTree, {"object_id", "children"}),
        (message_pb2.PullObjectRequest, {"node", "run_id", "object_id"}),
        (message_pb2.PullObjectResponse, {"object_found", "object_available", "object_content"}),
        (message_pb2.PushObjectRequest, {"node", "run_id", "object_id", "object_content", "session_id"}),
        (message_pb2.ConfirmMessageReceivedRequest, {"node", "run_id", "message_object_id"}),
        (runtime_pb2.PullAppMessagesRequest, {"message_ids"}),
        (runtime_pb2.PullAppMessagesResponse, {"messages_list", "message_object_trees"}),
        (runtime_pb2.AcquireTaskRequest, {"supported_task_types"}),
        (runtime_pb2.AcquireTaskResponse, {"task", "token"}),
        (control_pb2.RegisterNodeRequest, {"public_key", "name"}),
        (control_pb2.StartRunRequest, {"fab"}),
        (control_pb2.StartRunResponse, {"run_id"}),
        (control_pb2.ListNodesResponse, {"nodes_info"}),
        (control_pb2.ListRunsResponse, {"run_dict"}),
    ],
)
def test_a_message_has_the_fields_used(message: Any, fields: set[str]) -> None:
    assert fields <= {field.name for field in message.DESCRIPTOR.fields}


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (NodeAuthHttpInterceptor, ["private_key", "public_key"]),
        (inflatable_object.get_object_id, ["object_content"]),
        (inflatable_object.get_object_tree, ["obj"]),
        (inflatable_object.get_all_nested_objects, ["obj"]),
        (inflatable_object.iterate_object_tree, ["tree"]),
        (inflatable_object.get_object_body, ["object_content", "cls"]),
        (inflatable_object.get_object_type_from_object_content, ["object_content"]),
        (inflatable_utils.inflate_object_from_contents, ["object_id", "object_contents"]),
    ],
)
def test_a_function_takes_the_arguments_given(function: Callable[..., object], parameters: list[str]) -> None:
    assert list(inspect.signature(function).parameters)[: len(parameters)] == parameters


def test_the_host_can_run_a_server_app_as_flowers_own_process_does() -> None:
    given = {
        *("runtime_api_address", "log_queue", "token", "insecure", "certificates"),
        "runtime_dependency_install",
    }
    parameters = inspect.signature(run_serverapp).parameters
    assert given <= set(parameters)
    needed = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
    assert needed <= given
    assert isinstance(inspect.getattr_static(HttpGrid, "_runtime_client"), property)
    assert server_app.ACQUIRE == "/flwr.proto.Runtime/AcquireTask"


def test_a_metadata_has_the_setters_used() -> None:
    for name in ("created_at", "ttl"):
        assert isinstance(attribute := inspect.getattr_static(Metadata, name), property)
        assert attribute.fset is not None


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # of flwr's command line, for typer's and pathspec's sake
@pytest.mark.parametrize("model_code", [None, b"# a model\n"])
def test_flower_installs_the_bundles_that_we_write(tmp_path: Path, model_code: bytes | None) -> None:
    from flwr.cli.install import install_from_fab
    from flwr.common.config import get_fab_config

    content = bundle(b'{"a":1}', model_code)
    assert bundle(b'{"a":1}', model_code) == content
    installed = install_from_fab(content, tmp_path, skip_prompt=True)
    files = {path.name: path.read_bytes() for path in installed.iterdir()}
    assert files.pop("job.json") == b'{"a":1}'
    assert files.pop("model.py", None) == model_code
    assert list(files) == ["pyproject.toml"]
    components = get_fab_config(content)["tool"]["flwr"]["app"]["components"]
    assert components["serverapp"] == "coordinator.server_app:app"


def test_a_bundle_larger_than_flower_takes_is_refused() -> None:
    from flwr.common.constant import FAB_MAX_SIZE

    assert MAX_SIZE == FAB_MAX_SIZE
    with pytest.raises(SettingError, match="Flower takes"):
        bundle(b"{}", os.urandom(MAX_SIZE))


def test_a_node_beats_as_often_as_flower_allows() -> None:
    assert HEARTBEAT_SECONDS >= HEARTBEAT_MIN_INTERVAL
    assert HEARTBEAT_PATIENCE == 2  # "silent for twice as long counts as away"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of alembic, which flwr's database uses
@pytest.mark.parametrize("database", [False, True])
def test_the_superlink_carries_content_that_stands_in_a_message(tmp_path: Path, database: bool) -> None:
    """Small messages travel so: with objects alone an exchange takes four times as many requests."""
    objects = ObjectStoreFactory(str(tmp_path / "db") if database else FLWR_IN_MEMORY_DB_NAME)
    name = str(tmp_path / "db") if database else FLWR_IN_MEMORY_DB_NAME
    state = LinkStateFactory(name, NoOpFederationManager(), objects).state()
    node_id = state.create_node("owner", "owner", b"key", 60.0)
    assert state.activate_node(node_id, 60.0)
    run_id = state.create_run("a/b", "1", "hash", {}, NOOP_FEDERATION_ID, None, "owner", TaskType.SERVER_APP)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, SUPERLINK_NODE_ID, 1
    sent = Message(
        pack({"note": b"\0\xff"}, {"update": np.arange(9)}), dst_node_id=node_id, message_type="train"
    )
    root = without_content(sent)
    sent.metadata.__dict__["_message_id"] = root.object_id
    session = state.start_session(run_id)
    stored, missing = state.store_message_and_object_tree(
        message_from_proto(message_to_proto(sent)), get_object_tree(root), session
    )
    assert (stored, missing) == (True, [root.object_id])
    assert state.store_object(run_id, session, root.object_id, root.deflate())
    (got,) = state.get_message_ins(node_id, limit=1)
    assert list(iterate_object_tree(state.object_store.get_object_tree(root.object_id))) == [
        get_object_tree(root)
    ]
    config, arrays = unpack(from_proto(message_to_proto(got)).content)
    assert (config, arrays["update"].tolist()) == ({"note": b"\0\xff"}, list(range(9)))


def imported(module: ModuleType) -> set[str]:
    tree = ast.parse(Path(str(module.__file__)).read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    return names | {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }


@pytest.mark.parametrize(
    "name", ["client.exchange", "coordinator.exchange", "coordinator.bundle", "coordinator.gateway"]
)
def test_what_others_import_does_not_bring_flower_with_it(name: str) -> None:
    assert not [found for found in imported(importlib.import_module(name)) if found.split(".")[0] == "flwr"]
