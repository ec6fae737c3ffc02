"""URLs: one strict parser, and which URLs a receiver may open.

What `parse` returns is what is compared with the allow-list and what is requested, so no second
parser can read the same URL differently.
"""

from micropython import const

from .errors import INVALID_ARGUMENT, URL_NOT_ALLOWED, NATSBridgeError

_MAX_URL = const(1024)  # as for every string of an envelope
_HEX = "0123456789abcdef"


def parse(url, code=INVALID_ARGUMENT):
    """The parts of an http or https URL: (scheme, host, port, path).

    `host` is in lower case, an IPv6 address without its brackets. `path` begins with "/", has its
    dot segments resolved (RFC 3986, 5.2.4; %2e is a dot) and includes the query.
    Raises NATSBridgeError(`code`) for all that can be read in two ways.
    """
    try:
        return _parse(url)
    except ValueError as e:
        shown = repr(url)[:200]
        raise NATSBridgeError(code, "the URL %s is refused: %s" % (shown, e), {"url": shown})


def _parse(url):
    if not isinstance(url, str) or len(url) > _MAX_URL:
        raise ValueError("it is not a str of at most %d characters" % _MAX_URL)
    at = url.find("/", url.find("://") + 3)
    for c in url[at:] if at > 0 else "":
        if c > "~":  # in a path, in UTF-8 (RFC 3987)
            url = url.replace(c, "".join("%%%02X" % b for b in c.encode()))
    for c in url:
        if not "!" <= c <= "~" or c in '\\"<>^`{|}#':
            raise ValueError("it has the character %r" % c)
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    rest, mark, query = rest.partition("?")
    host, _, path = rest.partition("/")
    query = _resolve(path) + mark + query
    host = host.lower()
    if host[:1] == "[":
        host, mark, port = host[1:].partition("]")
        good = mark and ":" in host and not host.strip(_HEX + ":.")  # no character but these
        mark, port = port[:1], port[1:]
    else:
        host, mark, port = host.partition(":")
        good = host.strip(".-") and not host.strip(_HEX + "ghijklmnopqrstuvwxyz.-_")
    if not mark:
        port = "443" if scheme == "https" else "80"
    if (
        scheme not in ("http", "https")
        or not good
        or mark not in ("", ":")
        or not port.isdigit()
        or len(port) > 5
        or not 0 < int(port) < 65536
    ):
        raise ValueError("it is not http://host[:port]/path, with no user name")
    return scheme, host, int(port), query


def _resolve(path):
    """`path` without its dot segments, and with its leading slash."""
    for escape in path.lower().split("%")[1:]:
        code = escape[:2]
        if len(code) < 2 or code.strip(_HEX) or code < "20" or code in ("2f", "5c", "7f"):
            raise ValueError("it has the escape %%%s in its path" % code)
    out = []
    for part in path.split("/"):
        plain = part.lower().replace("%2e", ".")
        if plain == ".." and out:
            out.pop()
        if plain not in (".", ".."):
            out.append(part)
    if plain in (".", ".."):
        out.append("")
    return "/" + "/".join(out)


def origin(url):
    """Scheme, host and, where it is not the default, port of `url`: ``http://host:8080``."""
    scheme, host, port, _ = parse(url)
    text = scheme + ("://[%s]" if ":" in host else "://%s") % host
    return text if port == (443 if scheme == "https" else 80) else "%s:%d" % (text, port)


def allowed(url, prefixes):
    """Whether `url` has the origin of one of the URLs `prefixes` and all its path's segments.

    Raises URL_NOT_ALLOWED if `url` itself is refused, INVALID_ARGUMENT if a prefix is.
    """
    parts = parse(url, URL_NOT_ALLOWED)
    path = parts[3].split("?")[0] + "/"
    for prefix in prefixes:
        base = parse(prefix)
        if base[:3] == parts[:3] and path.startswith(base[3].split("?")[0].rstrip("/") + "/"):
            return True
    return False
