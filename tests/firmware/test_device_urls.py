"""urls.py: one strict URL parser, and which URLs a receiver may open."""

import contextlib
import json

import pytest

from harness import load_firmware, run_micropython

urls = load_firmware("urls")
Claims = load_firmware("download").Claims
NATSBridgeError = load_firmware("errors").NATSBridgeError

GOOD = [
    ("http://host", ["http", "host", 80, "/"]),
    ("http://host/", ["http", "host", 80, "/"]),
    ("HTTP://HoSt:8080/A/b", ["http", "host", 8080, "/A/b"]),
    ("https://host/a?b=/../c", ["https", "host", 443, "/a?b=/../c"]),
    ("http://host?q", ["http", "host", 80, "/?q"]),
    ("http://192.168.1.10:80/x", ["http", "192.168.1.10", 80, "/x"]),
    ("http://[::1]:8080/x", ["http", "::1", 8080, "/x"]),
    ("http://[FE80::1]", ["http", "fe80::1", 80, "/"]),
    ("http://my_host-1.lan:65535/x", ["http", "my_host-1.lan", 65535, "/x"]),
    ("http://h/a/./b/../c", ["http", "h", 80, "/a/c"]),
    ("http://h/a/%2e%2E/c", ["http", "h", 80, "/c"]),
    ("http://h/a/.%2e", ["http", "h", 80, "/"]),
    ("http://h/../../x", ["http", "h", 80, "/x"]),
    ("http://h/a/b/.", ["http", "h", 80, "/a/b/"]),
    ("http://h//a//", ["http", "h", 80, "//a//"]),
    ("http://h/%41%c3%a9", ["http", "h", 80, "/%41%c3%a9"]),
    ("http://h/é?ü", ["http", "h", 80, "/%C3%A9?%C3%BC"]),
    ("http://h/...", ["http", "h", 80, "/..."]),
]

BAD = [
    "",
    "host/x",
    "//host/x",
    "ftp://host/x",
    "file:///etc/passwd",
    "http:///x",
    "http://",
    "http:/host",
    "http://user@host/x",
    "http://user:pass@host/x",
    "http://good@evil/",
    "http://good:80@evil/",
    "http://host:/x",
    "http://host:0/x",
    "http://host:65536/x",
    "http://host:123456/x",
    "http://host:+80/x",
    "http://host:8a/x",
    "http://host:80:80/x",
    "http://ho st/x",
    "http://host/a b",
    "http://host/a\tb",
    "http://host/a\r\nHost: evil",
    "http://host/\x00",
    "http://host/\x7f",
    "http://h\u043est/",
    "http://host\\@evil/",
    "http://host/a\\b",
    "http://host/a#b",
    "http://%68ost/",
    "http://host/a%2fb",
    "http://host/a%5Cb",
    "http://host/%00",
    "http://host/%0d%0aX",
    "http://host/%7f",
    "http://host/%",
    "http://host/%4",
    "http://host/%zz",
    "http://[::1",
    "http://[::1]x/",
    "http://[::1]]/",
    "http://[abc]/",
    "http://[]/",
    "http://[::1%25eth0]/",
    "http://::1/",
    "http://.",
    "http://host/" + "x" * 1024,
    " http://host/",
    "http://host/<x>",
]

ALLOWED = [
    ("http://h/file/a", ["http://h/file"], True),
    ("http://h/file", ["http://h/file"], True),
    ("http://h/file/a", ["http://h/file/"], True),
    ("http://h:80/x", ["http://H"], True),
    ("https://h/x", ["https://h:443"], True),
    ("http://h/x?u=1", ["http://h/x"], True),
    ("http://h/a", ["http://other", "http://h"], True),
    ("http://[::1]:8080/x", ["http://[::1]:8080"], True),
    ("http://h/files/a", ["http://h/file"], False),
    ("http://h/file/../admin", ["http://h/file"], False),
    ("http://h/file/%2e%2e/admin", ["http://h/file"], False),
    ("http://h/x/../file/a", ["http://h/file"], True),
    ("http://h/File/a", ["http://h/file"], False),
    ("http://h:8081/x", ["http://h:8080"], False),
    ("https://h/x", ["http://h"], False),
    ("http://h.evil/x", ["http://h"], False),
    ("http://h/x", [], False),
    ("http://h/?/file/a", ["http://h/file"], False),
]


ORIGINS = {
    "http://HOST:80/x": "http://host",
    "https://host:443": "https://host",
    "https://host:80": "https://host:80",
    "http://[::1]:8080/x": "http://[::1]:8080",
}


class Receiver(Claims):
    """The allow-list of a receiver with these `allowed_urls`, whose file server tells nothing."""

    asked = True

    def __init__(self, prefixes):
        env = {"correlation_id": ""}
        home, prefixes = urls.links([], "http://own.example/plik", prefixes)
        super().__init__(None, env, None, home, prefixes, None)

    def receive(self, url):
        """Look whether a message's link may be followed."""
        item = {"data": url}
        urls.links([item], "http://own.example", ())
        self.check(item["where"], url)


@pytest.mark.parametrize(("url", "parts"), GOOD)
def test_a_url_has_these_parts(url, parts):
    origin, path, host, port = urls.parse(url)
    assert [origin.partition(":")[0], host, port, path] == parts


@pytest.mark.parametrize(("url", "origin"), ORIGINS.items())
def test_an_origin_is_without_the_default_port_and_with_the_brackets_of_ipv6(url, origin):
    assert urls.parse(url)[0] == origin


@pytest.mark.parametrize("url", [*BAD, None, 5, b"http://host/"])
def test_what_can_be_read_in_two_ways_is_refused(url):
    with pytest.raises(ValueError, match=r"^$|invalid literal"):
        urls.parse(url)


@pytest.mark.parametrize("url", ["ftp://host/x", "http://host/a\r\nHost: evil", 5])
def test_the_error_shows_the_url_and_what_it_must_be(url):
    with pytest.raises(NATSBridgeError) as e:
        urls.home(url)
    assert e.value.code == "INVALID_ARGUMENT"
    assert f"{url!r} is refused: it must be http" in e.value.message
    assert "\r" not in e.value.message


@pytest.mark.parametrize("open_it", [urls.home, Receiver(()).receive])
def test_a_long_url_is_not_repeated_whole_in_the_message(open_it):
    with pytest.raises(NATSBridgeError) as e:
        open_it("http://host/" + "x" * 5000)
    assert len(e.value.message) < 400


@pytest.mark.parametrize(("url", "prefixes", "expected"), ALLOWED)
def test_only_the_origin_and_whole_segments_of_a_prefix_are_allowed(url, prefixes, expected):
    refusal = pytest.raises(NATSBridgeError, match=r"URL_NOT_ALLOWED.*which is not under")
    with contextlib.nullcontext() if expected else refusal:
        Receiver(prefixes).receive(url)


def test_the_file_servers_own_url_is_allowed():
    Receiver(()).receive("http://own.example/plik/file/a")
    with pytest.raises(NATSBridgeError, match=r"URL_NOT_ALLOWED.*\['http://own.example'\]"):
        Receiver("http://other").receive("http://own.example/plikk/file/a")


@pytest.mark.parametrize("url", ["http://user:secret@h/", "http://h/%2f"])
def test_an_odd_url_of_a_message_is_not_allowed_and_its_login_not_repeated(url):
    with pytest.raises(NATSBridgeError, match=r"URL_NOT_ALLOWED.*is refused") as e:
        Receiver(["http://h"]).receive(url)
    assert "secret" not in e.value.message


def test_an_odd_prefix_is_an_argument_error():
    with pytest.raises(NATSBridgeError, match=r"INVALID_ARGUMENT.*is refused"):
        Receiver(["h"])


def test_a_base_is_without_a_query_and_a_final_slash():
    assert urls.home("http://H:80/a/b/?q=1")[:2] == ("http://h", "/a/b")
    assert urls.home("http://h") == urls.home("http://h/") == ("http://h", "", "h", 80, "")


def test_micropython_agrees():
    cases = json.dumps([GOOD, BAD])
    script = f"""
import json
from natsbridge.urls import parse
good, bad = json.loads({cases!r})
for u, parts in good:
    origin, path, host, port = parse(u)
    if [origin.split(":")[0], host, port, path] != parts:
        print(u)
for u in bad:
    try:
        print(u, parse(u))
    except ValueError as e:
        pass
"""
    assert run_micropython(script) == ""
