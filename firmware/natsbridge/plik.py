"""Files on a Plik server, for those who upload them by themselves."""

from .compose import open_source
from .stream import until
from .upload import TTL, upload


def plik_upload(
    file_server_url,
    dataname,
    data,
    *,
    ttl=TTL,
    removable=False,
    correlation_id="",
    on_progress=None,
    timeout=None,
):
    """Upload a file that any number of receivers can download until `ttl` seconds have passed.

    data: bytes-like or a binary stream. ttl 0, and one that the server finds too long: the
    server's default. removable: who knows the URL may delete the file.
    on_progress: called as on_progress(dataname, done, total), in bytes, total None if not known.
    timeout: s for all of it, None: as long as bytes move.

    Returns {"status": 200, "uploadid", "fileid", "url", "size", "sha256", "uploadtoken"}.
    Raises UPLOAD_FAILED, INVALID_ARGUMENT, INVALID_PAYLOAD_TYPE.
    """
    deadline = until(timeout)
    source = open_source(dataname, data, "binary")
    return upload(
        file_server_url,
        dataname,
        source,
        ttl,
        removable,
        False,
        correlation_id,
        on_progress,
        None,
        deadline,
    )


def plik_oneshot_upload(file_server_url, dataname, data):
    """Upload a file that the server removes at its first download, even if that breaks off.

    Returns {"status": 200, "uploadid", "fileid", "url"}; raises as `plik_upload`, which is safer.
    """
    source = open_source(dataname, data, "binary")
    result = upload(file_server_url, dataname, source, oneshot=True)
    for key in ("size", "sha256", "uploadtoken"):
        del result[key]
    return result
