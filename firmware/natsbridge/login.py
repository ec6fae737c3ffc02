"""The login that a file server's URL may carry."""

from binascii import b2a_base64


def split(url):
    """(the URL without its login, the header lines for it) of ``http://user:password@host``, both
    %-escaped. Raises ValueError if it has none."""
    if not isinstance(url, str):
        raise ValueError
    scheme, mark, rest = url.partition("://")
    user, at, _ = rest.split("/")[0].rpartition("@")
    if not at:
        raise ValueError
    url = scheme + mark + rest[len(user) + 1 :]
    if ":" not in user:
        user += ":"
    parts = user.split("%")
    data = bytearray(parts[0].encode())
    for part in parts[1:]:
        data.append(int(part[:2], 16))
        data += part[2:].encode()
    return url, "Authorization: Basic %s\r\n" % str(b2a_base64(data), "utf-8").strip()
