from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.container.features import ALL, Feature
from sandbox.errors import (
    ConfigError,
    EngineUnavailable,
    InfrastructureError,
    InvalidRequest,
    NotPermitted,
    ProtocolError,
    SandboxError,
    SessionLost,
)
from sandbox.runtimes.base import ContainerInfo, ContainerStats, EngineInfo
from sandbox.runtimes.broker import protocol
from sandbox.runtimes.broker.runtime import BrokerRuntime

KINDS = (EngineInfo, ContainerInfo, list[ContainerInfo], ContainerStats, protocol.ContainerId, bool)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=20,
)
ops = st.sampled_from(["engine", "image", "create", "list", "start", "connect", "remove", "no"])


@given(st.binary(max_size=500))
def test_no_bytes_are_more_than_an_invalid_request(line: bytes) -> None:
    with pytest.raises(InvalidRequest):
        protocol.decode_request(line)


@given(ops, st.dictionaries(st.sampled_from(["container", "labels", "spec", "reference"]), values))
def test_requests_of_any_shape_are_taken_or_refused(op: str, fields: dict[str, object]) -> None:
    line = json.dumps({**fields, "op": op}).encode()
    try:
        request = protocol.decode_request(line)
    except InvalidRequest:
        pass
    else:
        assert protocol.decode_request(protocol.encode_request(request)[:-1]) == request


@given(
    st.sampled_from(KINDS), st.binary(max_size=500) | values.map(lambda v: json.dumps(v).encode())
)
def test_no_bytes_are_more_than_a_broken_protocol_to_a_controller(
    kind: object, line: bytes
) -> None:
    with pytest.raises(ProtocolError):
        protocol.decode_answer(kind, line)


@given(st.sampled_from(KINDS), values)
def test_an_answer_is_of_its_kind_or_breaks_the_protocol(kind: object, value: object) -> None:
    try:
        answer = protocol.decode_answer(kind, json.dumps({"ok": value}).encode())
    except ProtocolError:
        return
    assert isinstance(answer, bool | str | list)


def test_what_an_engine_can_is_told_feature_by_feature_and_in_no_other_words() -> None:
    engine = EngineInfo(
        *("e", "1", "1", 2, ("runc",), True, "x86_64", 1 << 30, 2),
        enforces=ALL,
        reports=frozenset({Feature.MEMORY}),
    )
    line = protocol.encode_answer(EngineInfo, engine)
    assert protocol.decode_answer(EngineInfo, line[:-1]) == engine
    silent = json.loads(line)
    del silent["ok"]["enforces"], silent["ok"]["reports"]
    told = protocol.decode_answer(EngineInfo, json.dumps(silent).encode())
    assert (told.enforces, told.reports) == (frozenset(), frozenset())
    with pytest.raises(ProtocolError):
        protocol.decode_answer(EngineInfo, line.replace(b'"memory"', b'"everything"')[:-1])


@given(st.text(), st.text(), st.text())
def test_errors_arrive_as_one_printable_line_of_a_class_of_ours(
    code: str, message: str, remedy: str
) -> None:
    line = json.dumps({"error": {"code": code, "message": message, "remedy": remedy}}).encode()
    with pytest.raises(SandboxError) as caught:
        protocol.decode_answer(bool, line)
    assert all(c.isprintable() or c == "\n" for c in caught.value.message + caught.value.remedy)


@given(st.text(), st.text())
def test_whatever_an_error_says_it_is_one_line(message: str, remedy: str) -> None:
    line = protocol.encode_error(SessionLost(message, remedy=remedy))
    assert line.count(protocol.END) == 1
    assert line.startswith(protocol.ERROR_BEGINS)
    with pytest.raises(SessionLost):
        protocol.decode_answer(None, line[:-1])


def test_an_error_keeps_its_class_message_and_remedy() -> None:
    line = protocol.encode_error(NotPermitted("No.", remedy="Ask."))
    with pytest.raises(NotPermitted) as caught:
        protocol.decode_answer(bool, line[:-1])
    assert (caught.value.message, caught.value.remedy) == ("No.", "Ask.")


def test_an_error_of_an_unknown_class_is_our_fault_and_not_the_callers() -> None:
    line = b'{"error":{"code":"file_error","message":"x"}}'
    with pytest.raises(InfrastructureError):
        protocol.decode_answer(bool, line)


@pytest.mark.parametrize("url", ["broker://", "broker:///", "broker://host/x", "unix:///x", "x"])
def test_an_address_without_a_path_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        BrokerRuntime(url)


async def ask(tmp_path: Path, answer: bytes, *, timeout_s: float = 5) -> None:
    """Ask something that answers with these bytes, and then waits."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        if not answer:
            await reader.read()  # until nobody waits any longer
        writer.transport.abort() if not answer else writer.close()
        over.set()

    path, over = tmp_path / "false.sock", asyncio.Event()
    async with await asyncio.start_unix_server(handle, path):
        try:
            await BrokerRuntime(f"broker://{path}", timeout_s=timeout_s).engine()
        finally:
            await over.wait()


@pytest.mark.timed
@pytest.mark.anyio
async def test_a_silent_broker_is_given_up_in_time(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(EngineUnavailable, match="in time"):
        await ask(tmp_path, b"", timeout_s=0.3)
    assert time.monotonic() - began < 5


@pytest.mark.anyio
@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n\r\n", b'{"ok":null}\n', b"\n"])
async def test_what_is_no_broker_is_seen_to_be_none(tmp_path: Path, answer: bytes) -> None:
    with pytest.raises(ProtocolError):
        await ask(tmp_path, answer)


@pytest.mark.anyio
async def test_an_answer_cut_short_is_a_broker_that_went_away(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable):
        await ask(tmp_path, b'{"ok":')


@pytest.mark.anyio
async def test_an_answer_without_end_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "MAX_ANSWER_BYTES", 1_000_000)
    with pytest.raises(ProtocolError, match="no end"):
        await ask(tmp_path, b"x" * 3_000_000)
