"""urls: one parser, and what it lets through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsbridge import urls
from natsbridge.errors import NATSBridgeError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://h", "http://h/"),
        ("HTTP://Host:80/a", "http://host/a"),
        ("https://h:443/a?b=c", "https://h/a?b=c"),
        ("http://h:8080/a/./b/../c", "http://h:8080/a/c"),
        ("http://h/a/%2e%2E/b", "http://h/b"),
        ("http://h/../../x", "http://h/x"),
        ("http://[::1]:8080/a", "http://[::1]:8080/a"),
        ("http://h/a%20b", "http://h/a%20b"),
        ("http://h/größe", "http://h/gr%C3%B6%C3%9Fe"),
        ("http://h/a/..", "http://h/"),
        ("http://h/a//b", "http://h/a//b"),
    ],
)
def test_parsed_urls_are_normal(text: str, expected: str) -> None:
    assert str(urls.parse_url(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "file:///etc/passwd",
        "ftp://h/a",
        "//h/a",
        "/a",
        "http:/h/a",
        "http:///a",
        "http://u@h/a",
        "http://u:p@h/a",
        "http://h:0/",
        "http://h:65536/",
        "http://h:/a",
        "http://h:8 0/",
        "http://h/a b",
        "http://h/a\r\nHost: x",
        "http://h\\@evil/",
        "http://h/a\\b",
        "http://h/a%2f..%2fb",
        "http://h/%5c",
        "http://h/%00",
        "http://h/%zz",
        "http://h/a#b",
        "http://h/" + "a" * 1100,
        "http://hö/",
        "http://-/",
        " http://h/",
    ],
)
def test_odd_urls_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="it "):
        urls.parse_url(text)
    with pytest.raises(NATSBridgeError) as e:
        urls.check_url(text, "url")
    assert e.value.code == "INVALID_ARGUMENT"


@given(st.text(alphabet="ahtp:/.@%2eEfF?#\\ 5c[]ü\n", max_size=30))
def test_a_parsed_url_parses_to_itself_and_has_no_dots_left(tail: str) -> None:
    try:
        url = urls.parse_url("http://h" + tail)
    except ValueError:
        return
    assert urls.parse_url(str(url)) == url
    assert ".." not in url.path.split("/")


@pytest.mark.parametrize(
    ("base", "url", "expected"),
    [
        ("http://h:8080", "http://h:8080/file/a/b/c", True),
        ("http://h:8080/", "http://h:8080/", True),
        ("http://h:8080", "http://h:8081/", False),
        ("http://h", "https://h/", False),
        ("http://h", "http://h:80/x", True),
        ("http://h/plik", "http://h/plik/file", True),
        ("http://h/plik/", "http://h/plik/file", True),
        ("http://h/plik", "http://h/plikx", False),
        ("http://h/plik", "http://h/plik/../x", False),
        ("http://h/plik", "http://h/plik/%2e%2e/x", False),
        ("http://h", "http://h.evil/", False),
    ],
)
def test_allowed_is_origin_and_whole_segments(base: str, url: str, expected: bool) -> None:
    assert urls.allows(urls.parse_base(base, "base"), urls.parse_url(url)) is expected


def test_the_error_prints_the_argument_to_add() -> None:
    base = urls.parse_base("http://localhost:8080", "x")
    e = urls.not_allowed(urls.parse_url("http://192.168.1.5:8080/file/a"), [base])
    assert e.code == "URL_NOT_ALLOWED"
    assert 'allowed_urls=["http://192.168.1.5:8080"]' in e.message
    assert "http://localhost:8080" in e.message


def test_redirects_are_resolved_against_their_url() -> None:
    url = urls.parse_url("http://h/a/b?x=1")
    assert str(urls.resolve(url, "c")) == "http://h/a/c"
    assert str(urls.resolve(url, "//other/x")) == "http://other/x"
