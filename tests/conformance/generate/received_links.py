"""Messages to accept: claim checks, the URLs they may name, and who deletes the file."""

from typing import Any

from .common import GOT, PATH, compact, link, ok, pattern, redirect, sha256, wire


def received_links() -> None:
    def from_url(name: str, why: str, url: str, path: str, **more: Any) -> None:
        ok(name, why, wire(link(b"abc", url=url)), GOT, files={path: {"text": "abc"}}, **more)

    from_url(
        "url-upper-case-scheme", "scheme and host ignore case", "HTTP://{authority}" + PATH, PATH
    )
    from_url("url-query", "a query is kept", "{fileserver}/get?id=1&x=%20", "/get")
    from_url(
        "url-quoted",
        "percent-encoded names",
        "{fileserver}/file/U1/F1/a%20b%C3%BC.txt",
        "/file/U1/F1/a bü.txt",
    )
    from_url(
        "url-raw-unicode",
        "senders that do not quote names: the receiver does",
        "{fileserver}/file/U1/F1/größe.txt",
        "/file/U1/F1/größe.txt",
    )
    from_url(
        "url-dots-inside",
        "dot segments that stay inside the prefix",
        "{fileserver}/plik/a/../file/./U1/F1/n",
        "/plik/file/U1/F1/n",
        options={"fileserver_url": "{fileserver}/plik"},
    )
    for slash in ("", "/"):
        from_url(
            f"url-prefix{'-slash' if slash else ''}",
            "a path prefix in whole segments",
            "{fileserver}/plik/file/U1/F1/n",
            "/plik/file/U1/F1/n",
            options={"fileserver_url": "{fileserver}/plik" + slash},
        )
    from_url(
        "url-allowed-urls",
        "what the caller allows beside the file server",
        "{fileserver}/other/n",
        "/other/n",
        options={
            "fileserver_url": "http://files.example.com:8080",
            "allowed_urls": ["https://cdn.example.com/", "{fileserver}/other"],
        },
    )
    for key, value in (
        ("downloadDomain", "{fileserver}"),
        ("downloadDomainAlias", ["http://files.example.com", "{fileserver}"]),
    ):
        ok(
            f"url-{key}",
            "what this file server's own configuration names",
            wire(link(b"abc")),
            GOT,
            files={PATH: {"text": "abc"}, "/plik/config": {"text": compact({key: value})}},
            options={"fileserver_url": "{fileserver}/plik"},
        )
    ok(
        "link-no-size",
        "only the digest is checked",
        wire(link(b"abc", size=...)),
        GOT,
        files={PATH: {"text": "abc"}},
    )
    ok(
        "link-no-digest",
        "only the size is checked",
        wire(link(b"abc", metadata=...)),
        GOT,
        files={PATH: {"text": "abc"}},
    )
    ok(
        "link-no-size-no-digest",
        "nothing to check",
        wire(link(b"abc", size=..., metadata={"payload_bytes": 9})),
        GOT,
        files={PATH: {"text": "abc"}},
    )
    ok(
        "link-upper-case-digest",
        "hexadecimal digits in capitals",
        wire(link(b"abc", meta={"sha256": sha256(b"abc").upper()})),
        GOT,
        files={PATH: {"text": "abc"}},
    )
    ok(
        "link-chunked",
        "no Content-Length",
        wire(link(pattern(5000))),
        [["a.bin", {"pattern": 5000}, "binary"]],
        files={PATH: {"pattern": 5000, "chunked": True}},
    )
    ok(
        "link-second-attempt",
        "a busy server is asked again",
        wire(link(b"abc")),
        GOT,
        files={PATH: {"text": "abc", "fail_first": 1}},
    )
    hop = {f"/r{i}": redirect("{fileserver}" + f"/r{i + 1}") for i in range(1, 3)}
    ok(
        "redirects",
        "three redirects, absolute and relative, inside the allowed",
        wire(link(b"abc", url="{fileserver}/r1")),
        GOT,
        files={**hop, "/r3": redirect(PATH, 307), PATH: {"text": "abc"}},
        needs=["redirects"],
    )
    ok(
        "redirect-to-download-domain",
        "a redirect is held to the same rule: the file server's configuration is asked here too",
        wire(link(b"abc", url="{fileserver}/plik" + PATH)),
        GOT,
        files={
            "/plik" + PATH: redirect("{fileserver}" + PATH, 301),
            "/plik/config": {"text": '{"downloadDomain":"{fileserver}"}'},
            PATH: {"text": "abc"},
        },
        options={"fileserver_url": "{fileserver}/plik"},
        needs=["redirects"],
    )
    ok(
        "same-file-twice",
        "one claim check in two payloads",
        wire(link(b"abc"), link(b"abc")),
        GOT * 2,
        files={PATH: {"text": "abc"}},
    )
    received_deletions()


def received_deletions() -> None:
    """Who may remove a file after reading it."""
    me = {"name": "desk", "id": "desk-1"}
    files = {PATH: {"text": "abc"}}

    def case(name: str, why: str, deleted: bool, payload: dict[str, Any], **fields: Any) -> None:
        ok(
            f"delete-{name}",
            why,
            wire(payload, **fields),
            GOT,
            files=files,
            receiver=me,
            deleted=[PATH] if deleted else [],
        )

    removable = link(b"abc", meta={"removable": True})
    case("by-id", "receiver_id is mine", True, removable, receiver_id="desk-1", receiver_name="x")
    case("by-name", "no receiver_id, receiver_name is mine", True, removable, receiver_name="desk")
    case(
        "other-id",
        "receiver_id decides alone",
        False,
        removable,
        receiver_id="x",
        receiver_name="desk",
    )
    case("other-name", "not addressed to me", False, removable, receiver_name="x")
    case("broadcast", "addressed to nobody", False, removable)
    case("not-removable", "the sender did not offer it", False, link(b"abc"), receiver_id="desk-1")
    case(
        "unsaid",
        "removable is absent",
        False,
        link(b"abc", meta={"removable": ...}),
        receiver_id="desk-1",
    )
    case(
        "no-digest",
        "nothing proved that the file was read whole",
        False,
        link(b"abc", meta={"removable": True, "sha256": ...}),
        receiver_id="desk-1",
    )
    case(
        "no-size",
        "nothing proved that the file was read whole",
        False,
        link(b"abc", size=..., meta={"removable": True}),
        receiver_id="desk-1",
    )
    for name, url, path in (
        ("upload", "/upload/U1", "/upload/U1"),
        ("upload-by-dots", "/file/../upload/U1", "/upload/U1"),
        ("upload-by-quoted-dots", "/file/%2e%2e/upload/U1", "/upload/U1"),
        ("no-name", "/file/U1/F1", "/file/U1/F1"),
        ("query", "/file/U1/F1/a.bin?x=1", "/file/U1/F1/a.bin"),
        ("elsewhere", "/data/U1/F1/a.bin", "/data/U1/F1/a.bin"),
        ("deeper", "/file/U1/F1/a/b", "/file/U1/F1/a/b"),
        ("below-a-prefix", "/plik/file/U1/F1/n", "/plik/file/U1/F1/n"),
    ):
        ok(
            f"delete-never-{name}",
            "only /file/<upload>/<file>/<name> is ever deleted",
            wire(
                link(b"abc", url="{fileserver}" + url, meta={"removable": True}),
                receiver_id="desk-1",
            ),
            GOT,
            files={path: {"text": "abc"}},
            receiver=me,
            deleted=[],
        )


def add_cases() -> None:
    """Adds every case of this module."""
    received_links()
