"""Messages to refuse: URLs outside the allowed, and downloads that fail."""

import base64
from typing import Any

from .common import (
    DOWNLOAD,
    GARBLED,
    INTEGRITY,
    PATH,
    RECEIVE,
    TOO_LARGE,
    TYPE,
    URL,
    b64,
    bad,
    direct,
    link,
    pattern,
    redirect,
    wire,
)


def refused_links() -> None:
    files = {PATH: {"text": "abc"}, "/secret": {"text": "abc"}, "/": {"text": "abc"}}

    def no(name: str, why: str, url: str, **more: Any) -> None:
        bad(
            f"url-{name}",
            why,
            URL,
            wire(link(b"abc", url=url)),
            files={**files, **more.pop("files", {})},
            **more,
        )

    for name, url in {
        "empty": "",
        "relative": PATH,
        "bare-name": "a.bin",
        "scheme-relative": "//{authority}" + PATH,
        "no-scheme": "{authority}" + PATH,
        "file": "file:///etc/passwd",
        "file-host": "file://{authority}" + PATH,
        "ftp": "ftp://{authority}" + PATH,
        "javascript": "javascript:alert(1)",
        "data": "data:text/plain;base64,YWJj",
        "ws": "ws://{authority}" + PATH,
        "https": "https://{authority}" + PATH,
        "no-host": "http://" + PATH,
        "one-slash": "http:/{authority}" + PATH,
        "three-slashes": "http:///{authority}" + PATH,
    }.items():
        no(name, "only http(s) URLs of the file server", url)
    for name, url in {
        "other-host": "http://files.example.com" + PATH,
        "other-host-same-port": "http://files.example.com:{port}" + PATH,
        "localhost": "http://localhost:{port}" + PATH,
        "metadata-service": "http://169.254.169.254/latest/meta-data",
        "ipv6": "http://[::1]:{port}" + PATH,
        "other-address-form": "http://2130706433:{port}" + PATH,
        "short-address": "http://127.1:{port}" + PATH,
        "final-dot": "http://127.0.0.1.:{port}" + PATH,
        "other-port": "http://127.0.0.1:1" + PATH,
        "no-port": "http://127.0.0.1" + PATH,
        "empty-port": "http://127.0.0.1:" + PATH,
        "port-0": "http://127.0.0.1:0" + PATH,
        "longer-port": "http://{authority}0" + PATH,
        "port-letters": "http://{authority}x" + PATH,
        "host-suffix": "http://{authority}.example.com" + PATH,
        "host-suffix-no-port": "http://127.0.0.1.example.com:{port}" + PATH,
        "userinfo": "http://user@{authority}" + PATH,
        "userinfo-password": "http://user:pw@{authority}" + PATH,
        "userinfo-empty": "http://@{authority}" + PATH,
        "userinfo-trick": "http://{authority}@files.example.com" + PATH,
        "userinfo-trick-slash": "http://{authority}\\@files.example.com" + PATH,
        "quoted-at": "http://{authority}%40files.example.com" + PATH,
        "fragment-trick": "http://files.example.com#@{authority}" + PATH,
        "query-trick": "http://files.example.com?@{authority}" + PATH,
    }.items():
        no(name, "only the origin of the file server", url)
    for name, url in {
        "fragment": "{fileserver}" + PATH + "#x",
        "backslash": "{fileserver}\\file\\U1\\F1\\a.bin",
        "backslash-in-path": "{fileserver}/file\\..\\secret",
        "space": "{fileserver}/file/U1/F1/a bin",
        "leading-space": " {fileserver}" + PATH,
        "trailing-space": "{fileserver}" + PATH + " ",
        "tab-in-scheme": "ht\ttp://{authority}" + PATH,
        "line-feed": "{fileserver}" + PATH + "\n",
        "request-splitting": "{fileserver}/a HTTP/1.1\r\nX-Evil: 1\r\n\r\nGET /secret",
        "header-splitting": "{fileserver}/secret\r\nX-Evil:1",
        "quoted-slash": "{fileserver}/file/U1/F1%2Fa.bin",
        "quoted-backslash": "{fileserver}/file/U1/F1/a%5Cb",
        "quoted-line-break": "{fileserver}/file/U1/F1/a%0D%0Ab",
        "nul": "{fileserver}" + PATH + "\x00",
        "delete": "{fileserver}" + PATH + "\x7f",
    }.items():
        no(name, "characters that two parsers read differently", url)
    prefix = {"fileserver_url": "{fileserver}/file"}
    for name, path in {
        "prefix-of-name": "/filesystem/a",
        "no-path": "",
        "root": "/",
        "sibling": "/secret",
        "dots": "/file/../secret",
        "dots-deep": "/file/a/../../secret",
        "dots-end": "/file/..",
        "quoted-dots": "/file/%2e%2e/secret",
        "quoted-dots-capital": "/file/%2E%2E/secret",
        "half-quoted-dots": "/file/.%2e/secret",
        "quoted-slash": "/file/..%2fsecret",
        "quoted-slash-capital": "/file/%2E%2E%2Fsecret",
        "quoted-backslash": "/file/..%5csecret",
        "other-case": "/FILE/U1/F1/a.bin",
    }.items():
        no(
            f"prefix-{name}",
            "only below the file server's path",
            "{fileserver}" + path,
            options=prefix,
            files={"/filesystem/a": {"text": "abc"}},
        )
    no(
        "allowed-urls-only-prefix",
        "allowed_urls are prefixes in whole segments",
        "{fileserver}/others/a",
        files={"/others/a": {"text": "abc"}},
        options={"fileserver_url": "{fileserver}/file", "allowed_urls": ["{fileserver}/other"]},
    )
    for name, config in {
        "unreadable": "<html>",
        "list": "[]",
        "empty": '{"downloadDomain":"","downloadDomainAlias":null}',
        "other": '{"downloadDomain":"http://files.example.com"}',
        "file-scheme": '{"downloadDomain":"file:///"}',
        "number": '{"downloadDomain":5}',
    }.items():
        no(
            f"config-{name}",
            "a configuration that names no other place",
            "{fileserver}" + PATH,
            options={"fileserver_url": "{fileserver}/plik"},
            files={"/plik/config": {"text": config}},
        )
    refused_downloads()


def refused_downloads() -> None:
    def fails(name: str, why: str, code: str | list[str], served: Any, **more: Any) -> None:
        payload = more.pop("payload", link(b"abc"))
        bad(
            f"link-{name}", why, code, wire(payload), files={PATH: served} if served else {}, **more
        )

    for status in (400, 401, 403, 404, 410, 429, 500, 503):
        fails(f"status-{status}", "not delivered", DOWNLOAD, {"text": "abc", "status": status})
    fails(
        "status-204",
        "only 200 (or 206 to a range) is the file",
        [DOWNLOAD, INTEGRITY],
        {"text": "", "status": 204},
    )
    fails("missing-file", "404", DOWNLOAD, None)
    bad(
        "link-no-server",
        "nothing listens there",
        DOWNLOAD,
        wire(link(b"abc", url="http://127.0.0.1:1/file/U1/F1/a.bin")),
        options={"fileserver_url": "http://127.0.0.1:1"},
    )
    fails("short", "an honest Content-Length, too small", INTEGRITY, {"text": "ab"})
    fails("long", "an honest Content-Length, too large", INTEGRITY, {"text": "abcd"})
    fails("empty", "an empty file", INTEGRITY, {"text": ""})
    fails(
        "cut",
        "the connection ends before Content-Length",
        DOWNLOAD,
        {"pattern": 5000, "cut": 4000},
        payload=link(pattern(5000)),
    )
    fails(
        "chunked-short",
        "well-formed chunks that end early",
        INTEGRITY,
        {"text": "ab", "chunked": True},
    )
    fails("chunked-long", "more than was promised", INTEGRITY, {"text": "abcd", "chunked": True})
    fails("same-length", "another content", INTEGRITY, {"text": "abd"})
    fails(
        "same-length-large",
        "one bit, late",
        INTEGRITY,
        {"base64": b64(pattern(4999) + b"\xff")},
        payload=link(pattern(5000)),
    )
    fails(
        "wrong-digest-no-size",
        "the digest alone",
        INTEGRITY,
        {"text": "abd"},
        payload=link(b"abc", size=...),
    )
    fails(
        "wrong-size-no-digest",
        "the size alone",
        INTEGRITY,
        {"text": "abcd"},
        payload=link(b"abc", metadata=...),
    )
    page = "<!DOCTYPE html><title>Plik</title>"
    fails(
        "web-page",
        "an error page in place of the file",
        INTEGRITY,
        {"text": page, "headers": {"Content-Type": "text/html"}},
    )
    packed = "H4sIAAAAAAACA0tMSgYAwkEkNQMAAAA="  # gzip of abc
    fails(
        "gzip-of-right-size",
        "a body that is said to be packed is refused, whatever its digest",
        DOWNLOAD,
        {"base64": packed, "headers": {"Content-Encoding": "gzip"}},
        payload=link(base64.b64decode(packed)),
    )
    fails(
        "gzip",
        "a body is taken as it is, never unpacked",
        [DOWNLOAD, INTEGRITY],
        {"base64": packed, "headers": {"Content-Encoding": "gzip"}},
    )
    for name, data, kind in (
        ("text", b"\xff", "text"),
        ("dictionary", b"[1 2}", "dictionary"),
        ("jsontable", b"{}", "jsontable"),
    ):
        fails(
            f"garbled-{name}",
            "verified, but not of its type",
            GARBLED,
            {"base64": b64(data)},
            payload=link(data, kind),
        )
    fails(
        "garbled-arrow",
        "verified, but not of its type",
        GARBLED,
        {"text": "abc"},
        payload=link(b"abc", "arrowtable"),
        needs=["arrow"],
    )
    fails(
        "size-claims-2^53",
        "nothing is allocated for a claim",
        [INTEGRITY, TOO_LARGE],
        {"text": "abc"},
        payload=link(b"abc", size=2**53),
    )
    url = {"payload": link(b"abc", url="{fileserver}/r1")}
    hops = {f"/r{i}": redirect(f"/r{i + 1}") for i in range(1, 4)}

    def leads(name: str, why: str, code: str, files: dict[str, Any], **more: Any) -> None:
        bad(
            f"redirect-{name}",
            why,
            code,
            wire(url["payload"]),
            files={PATH: {"text": "abc"}, **files},
            **more,
        )

    leads("four", "three redirects are enough", DOWNLOAD, {**hops, "/r4": redirect(PATH)})
    leads("loop", "three redirects are enough", DOWNLOAD, {"/r1": redirect("/r1")})
    leads("nowhere", "a redirect without Location", DOWNLOAD, {"/r1": {"text": "", "status": 302}})
    for name, location in {
        "other-host": "http://files.example.com" + PATH,
        "localhost": "http://localhost:{port}" + PATH,
        "other-port": "http://127.0.0.1:1" + PATH,
        "scheme-relative": "//files.example.com" + PATH,
        "file": "file:///etc/passwd",
        "userinfo": "http://user@{authority}" + PATH,
    }.items():
        why = "a redirect is held to the same rule"
        leads(name, why, URL, {"/r1": redirect(location)}, needs=["redirects"])
    leads(
        "out-of-prefix",
        "a redirect is held to the same rule",
        URL,
        {"/plik/r1": redirect(PATH)},
        options={"fileserver_url": "{fileserver}/plik"},
        needs=["redirects"],
    )
    RECEIVE[-1]["wire"] = wire(link(b"abc", url="{fileserver}/plik/r1"))
    bad(
        "second-of-two-links",
        "one payload that fails, fails the message",
        DOWNLOAD,
        wire(link(b"abc"), link(b"abc", url="{fileserver}/none")),
        files={PATH: {"text": "abc"}},
    )
    bad(
        "second-payload-unknown-type",
        "one payload that fails, fails the message",
        TYPE,
        wire(direct(), direct(kind="x")),
    )
    bad(
        "delete-after-failure",
        "nothing is deleted unless the whole message was received",
        GARBLED,
        wire(
            link(b"abc", meta={"removable": True}),
            link(b"[", "dictionary", "{fileserver}/b"),
            receiver_id="desk-1",
        ),
        files={PATH: {"text": "abc"}, "/b": {"text": "["}},
        receiver={"name": "desk", "id": "desk-1"},
        deleted=[],
    )


def add_cases() -> None:
    """Adds every case of this module."""
    refused_links()
