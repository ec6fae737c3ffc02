"""Which URLs one receiver may open: the rule of `urls`, and what the file server adds to it."""

from __future__ import annotations

from collections.abc import Iterable

from natsbridge import http
from natsbridge.log import trace
from natsbridge.urls import Url, allows, not_allowed, parse_url, shown

__all__ = ["Allowed"]


class Allowed:
    """URLs that may be opened.

    Args:
        bases: URLs under which they lie.
        fileserver: the caller's own file server, whose `GET /config` may name download domains;
            it is asked once, when a URL lies under none of `bases`. None: nobody is asked.
    """

    def __init__(self, bases: Iterable[Url], fileserver: Url | None = None) -> None:
        self.bases = list(bases)
        self._fileserver = fileserver

    def has(self, url: Url) -> bool:
        """Tell whether `url` lies under a known base."""
        return any(allows(base, url) for base in self.bases)

    async def check(self, session: http.Session, url: Url) -> None:
        """Refuse a URL outside.

        Raises:
            NATSBridgeError: `URL_NOT_ALLOWED`, with the argument to add.
        """
        if not self.has(url) and self._fileserver is not None:
            fileserver, self._fileserver = self._fileserver, None
            self.bases += await _download_domains(session, fileserver)
        if not self.has(url):
            raise not_allowed(url, self.bases)


async def _download_domains(session: http.Session, base: Url) -> list[Url]:
    """Return the download domains that the caller's own file server names."""
    config = await http.fileserver_config(session, str(base))
    found: list[Url] = []
    for key in ("downloadDomain", "downloadDomainAlias", "downloadDomainAliases"):
        value = config.get(key)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and text:
                try:
                    found.append(parse_url(text))
                except ValueError as e:
                    trace("", f"The file server names the download domain {shown(text)}: {e}")
    return found
