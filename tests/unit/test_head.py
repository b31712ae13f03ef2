"""Request headers: one scan, one value, and only JSON comes in."""

from __future__ import annotations

import pytest

from sluicegate.errors import GatewayError
from sluicegate.http.head import Head, read_head, require_json, require_method


def test_everything_the_gateway_reads() -> None:
    head = read_head(
        [
            (b"host", b"x"),
            (b"authorization", b"Bearer k"),
            (b"x-api-key", b"k"),
            (b"api-key", b"k2"),
            (b"content-type", b"application/json"),
            (b"content-length", b"12"),
            (b"content-encoding", b"gzip"),
            (b"x-client-request-id", b"mine"),
            (b"traceparent", b"00-1-2-01"),
            (b"openai-beta", b"assistants=v2"),
            (b"cookie", b"secret"),
            (b"x-stainless-lang", b"python"),
        ]
    )
    assert head.authorization == b"Bearer k"
    assert head.other_keys == (b"k", b"k2")
    assert head.content_type == b"application/json"
    assert head.content_length == 12
    assert head.content_encoding == b"gzip"
    assert head.client_request_id == b"mine"
    assert head.forward == (("traceparent", "00-1-2-01"), ("openai-beta", "assistants=v2"))


@pytest.mark.parametrize("value", [b"a\r\nx-injected: 1", b"a\x00", "ü".encode(), b"x" * 1025])
def test_what_could_harm_an_upstream_is_not_passed_on(value: bytes) -> None:
    assert read_head([(b"traceparent", value)]).forward == ()


@pytest.mark.parametrize("value", [b"", b"+5", b"-1", b"5, 5", b"0x10", "٣".encode()])
def test_a_length_that_is_no_number_is_unknown(value: bytes) -> None:
    assert read_head([(b"content-length", value)]).content_length is None


@pytest.mark.parametrize("name", [b"authorization", b"content-type"])
def test_two_different_values_of_a_unique_header_are_a_400(name: bytes) -> None:
    assert read_head([(name, b"a"), (name, b"a")])
    with pytest.raises(GatewayError) as caught:
        read_head([(name, b"a"), (name, b"b")])
    assert (caught.value.status, caught.value.code) == (400, "duplicate_header")


@pytest.mark.parametrize(
    "value",
    [
        b"application/json",
        b"Application/JSON",
        b"application/json; charset=utf-8",
        b"application/json;charset=UTF-8",
        b'application/json ; charset="utf-8"; v=1',
    ],
)
def test_json_comes_in(value: bytes) -> None:
    require_json(Head(content_type=value))


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"text/plain",
        b"application/x-www-form-urlencoded",
        b"application/jsonx",
        b"application/json, text/plain",
        b"application/vnd.api+json",
        b"application/json; charset=latin-1",
        b"multipart/form-data; boundary=application/json",
    ],
)
def test_all_else_is_a_415_that_says_what_to_send(value: bytes | None) -> None:
    with pytest.raises(GatewayError) as caught:
        require_json(Head(content_type=value))
    assert caught.value.status == 415
    assert "Content-Type: application/json" in caught.value.message


@pytest.mark.parametrize("value", [b"gzip", b"br", b"identity, gzip", b"x"])
def test_a_compressed_body_is_a_415(value: bytes) -> None:
    with pytest.raises(GatewayError) as caught:
        require_json(Head(content_type=b"application/json", content_encoding=value))
    assert (caught.value.status, caught.value.code) == (415, "unsupported_content_encoding")


@pytest.mark.parametrize("value", [b"identity", b"IDENTITY", b" "])
def test_an_encoding_that_is_none_is_accepted(value: bytes) -> None:
    require_json(Head(content_type=b"application/json", content_encoding=value))


def test_methods() -> None:
    require_method("HEAD", "GET, HEAD")
    for method in ("POST", "get", "GET, HEAD", "", "OPTIONS"):
        with pytest.raises(GatewayError) as caught:
            require_method(method, "GET, HEAD")
        assert caught.value.status == 405
        assert (b"allow", b"GET, HEAD") in caught.value.headers


def test_only_chunked_bodies_without_another_coding() -> None:
    for value in (b"chunked", b"Chunked", b" chunked "):
        assert read_head([(b"transfer-encoding", value)]).has_body
    for value in (b"gzip, chunked", b"gzip", b"", b"identity", b"chunked, chunked"):
        with pytest.raises(GatewayError) as caught:
            read_head([(b"transfer-encoding", value)])
        assert (caught.value.status, caught.value.code) == (415, "unsupported_content_encoding")
    assert read_head([(b"content-length", b"7")]).has_body
    assert not read_head([(b"content-length", b"0")]).has_body
    assert not read_head([]).has_body
