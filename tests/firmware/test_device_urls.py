"""urls.py: one strict parser, and which URLs a receiver may open."""

import json

import pytest

from harness import load_firmware, run_micropython

urls = load_firmware("urls")
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


@pytest.mark.parametrize(("url", "parts"), GOOD)
def test_a_url_has_these_parts(url, parts):
    assert list(urls.parse(url)) == parts


@pytest.mark.parametrize("url", [*BAD, None, 5, b"http://host/"])
def test_what_can_be_read_in_two_ways_is_refused_with_a_reason(url):
    with pytest.raises(NATSBridgeError) as e:
        urls.parse(url)
    assert e.value.code == "INVALID_ARGUMENT"
    assert "is refused: it " in e.value.message
    assert "\r" not in e.value.message


def test_a_long_url_is_not_repeated_whole_in_the_message():
    with pytest.raises(NATSBridgeError) as e:
        urls.parse("http://host/" + "x" * 5000)
    assert len(e.value.message) < 300


@pytest.mark.parametrize(("url", "prefixes", "expected"), ALLOWED)
def test_only_the_origin_and_whole_segments_of_a_prefix_are_allowed(url, prefixes, expected):
    assert urls.allowed(url, prefixes) is expected


def test_a_refused_url_is_not_allowed_and_a_refused_prefix_is_an_argument_error():
    with pytest.raises(NATSBridgeError) as e:
        urls.allowed("http://u@h/", ["http://h"])
    assert e.value.code == "URL_NOT_ALLOWED"
    with pytest.raises(NATSBridgeError) as e:
        urls.allowed("http://h/", ["h"])
    assert e.value.code == "INVALID_ARGUMENT"


def test_origin_leaves_out_the_default_port_and_keeps_the_brackets_of_ipv6():
    assert urls.origin("http://HOST:80/x") == "http://host"
    assert urls.origin("https://host:443") == "https://host"
    assert urls.origin("https://host:80") == "https://host:80"
    assert urls.origin("http://[::1]:8080/x") == "http://[::1]:8080"


def test_micropython_agrees():
    cases = json.dumps([GOOD, BAD, ALLOWED])
    script = f"""
import json
from natsbridge.urls import parse, allowed
from natsbridge.errors import NATSBridgeError
good, bad, may = json.loads({cases!r})
print([list(parse(u)) for u, _ in good] == [parts for _, parts in good])
for u in bad:
    try:
        print(u, parse(u))
    except NATSBridgeError as e:
        pass
print([allowed(u, p) for u, p, _ in may] == [x for _, _, x in may])
"""
    assert run_micropython(script) == "True\nTrue\n"
