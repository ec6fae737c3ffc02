"""URLs: each is parsed once, by this parser alone, before what is asked there is loaded."""

from binascii import hexlify

from micropython import const

from .errors import INVALID_ARGUMENT, drop, fail

_MAX_URL = const(1024)  # characters, as for every string of an envelope


def parse(url):
    """The parts of an http or https URL: (origin, path, host, port). What is returned is what is
    compared with the allow-list and what is requested: no second parser can read it differently.

    origin: scheme, host and, where it is not the default, port: ``http://host:8080``.
    path: begins with "/", has its dot segments resolved (RFC 3986, 5.2.4; %2e is a dot) and
        includes the query.
    host: in lower case, an IPv6 address without its brackets.

    Raises ValueError for all that can be read in two ways.
    """
    if not isinstance(url, str) or len(url) > _MAX_URL:
        raise ValueError
    at = url.find("/", url.find("://") + 3)
    # (Else by bytes: each character of a str stays in the heap as a name.)
    for c in url[at:] if at > 0 and max(url.encode()) > 127 else "":
        if c > "\x7f":  # in a path, in UTF-8 (RFC 3987)
            url = url.replace(c, "%" + str(hexlify(c.encode(), "%"), "utf-8").upper())
    good = True
    bad = '\\"<>^`{|}#'.encode()
    for c in url.encode():
        if not 33 <= c <= 126 or c in bad:
            good = False
    scheme, _, rest = url.partition("://")
    rest, query, text = rest.partition("?")
    query += text
    host, _, rest = rest.partition("/")
    for text in rest.lower().split("%")[1:]:
        if int(text[:2], 16) < 32 or text[:2] in "2f 5c 7f":  # 15 at most, if it is not two digits
            good = False
    path = []
    for part in rest.split("/"):
        text = part.lower().replace("%2e", ".")
        if text == "..":
            path = path[:-1]
        elif text != ".":
            path.append(part)
    if text and text in "..":
        path.append("")
    scheme = scheme.lower()
    usual = "443" if scheme == "https" else "80"
    host = host.lower()
    if host[:1] == "[":
        host, rest, port = host[1:].partition("]")
        text = "[%s]" % host
        good = good and rest and ":" in host
        rest = port[:1]
        port = port[1:]
    else:
        host, rest, port = host.partition(":")
        text = host
        good = good and host.strip(".-")
    for i in range(len(host)):
        c = host[i : i + 1]
        if not (c.isalpha() or c.isdigit() or c in ".-_:"):
            good = False
    if not rest:
        port = usual
    if (
        not good
        or (scheme != "http" and scheme != "https")
        or rest.strip(":")
        or not port.isdigit()
        or len(port) > 5
        or not 0 < int(port) < 65536
    ):
        raise ValueError
    port = int(port)
    origin = scheme + "://" + text
    if port != int(usual):
        origin += ":%d" % port
    return origin, "/" + "/".join(path) + query, host, port


def home(url):
    """What http.Connection takes for the file server at `url` (None: the default one), which may
    carry a login: (origin, path that others are added to, host, port, header lines).

    Raises INVALID_ARGUMENT.
    """
    if url is None:
        from . import setting

        url = setting("FILESERVER_URL", "http://localhost:8080")
    lines = ""
    try:
        try:
            where = parse(url)
        except ValueError:
            from .login import split

            plain, lines = split(url)
            where = parse(plain)
    except ValueError:
        raise odd(url)
    drop("urls")
    return where[0], stem(where), where[2], where[3], lines


def links(items, fileserver_url, allowed_urls):
    """Parse the links of a message: (home, how the URLs must begin). An item's "where" is None for
    what is no URL. Raises INVALID_ARGUMENT."""
    server = home(fileserver_url)
    prefixes = ["%s%s/" % server[:2]]
    several = isinstance(allowed_urls, (list, tuple))
    for url in allowed_urls if several else (allowed_urls,):
        prefixes.append("%s%s/" % home(url or "")[:2])
    for item in items:
        try:
            item["where"] = parse(item["data"])
        except ValueError:
            item["where"] = None
    drop("urls")
    return server, prefixes


def stem(where):
    """The path of `where`, without a query or a final slash."""
    return where[1].split("?")[0].rstrip("/")


def odd(url):
    url = repr(url)
    return fail(INVALID_ARGUMENT, "url", url[url.rfind("@") + 1 :][:200])  # without a login
