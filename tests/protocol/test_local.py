"""The generated messages of the local API are those of its .proto file, and nothing else is generated."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fedsite.protocol import local_pb2

ROOT = Path(__file__).resolve().parents[2]


def test_the_committed_messages_are_what_protoc_makes_of_the_file(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="pip install 'fedsite[dev]'")
    folder = tmp_path / "fedsite" / "protocol"
    folder.mkdir(parents=True)
    (folder / "local.proto").write_bytes((ROOT / "protocol" / "local.proto").read_bytes())
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--python_out=.", "--pyi_out=."]
    subprocess.run([*command, "fedsite/protocol/local.proto"], cwd=tmp_path, check=True, timeout=60)
    for name in ("local_pb2.py", "local_pb2.pyi"):
        assert (folder / name).read_text() == (ROOT / "protocol" / name).read_text(), (
            f"docs/decisions/0008 says how: {name}"
        )
    assert not list(ROOT.glob("protocol/*_grpc.py"))


def test_the_service_is_the_one_that_the_documents_name() -> None:
    service = local_pb2.DESCRIPTOR.services_by_name["Agent"]
    assert service.full_name == "fedsite.local.v1.Agent"
    assert [method.name for method in service.methods] == ["Status", "Watch", "Pause", "Resume", "Rounds", "Score"]
