"""The file server's uploads on disk.

Each upload is a folder, `<upload id>.upload`, which holds

    upload.json     what the upload is: as `GET /upload/<id>` answers it, with the upload's token
    <file id>       the bytes of a complete file
    <file id>.part  bytes that are still arriving

`upload.json` is written under a temporary name and renamed, when the upload is made and whenever
a file is complete. To forget, nothing needs to be written, so that a full disk can be emptied: a
file is gone when its bytes are, an upload when its `upload.json` is. Whatever a crash left
half-done is cleared away at the next start.

Everything here blocks. All of it is quick and runs in the event loop's thread, so there are no
locks; only `Incoming.write` and reading a file belong in another thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
import shutil
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, BinaryIO

from natsbridge.log import logger

__all__ = ["UPLOADED", "File", "FileStore", "Incoming", "TooLarge", "Upload"]

#: Plik's words for what became of a file.
UPLOADING = "uploading"
UPLOADED = "uploaded"
REMOVED = "removed"
DELETED = "deleted"

_ALPHABET = string.ascii_letters + string.digits
#: The only names that ever become part of a path.
_ID = re.compile(r"[A-Za-z0-9]{16}")

#: (offset, bytes, type): what browsers show and this project sends, typed as Plik types it.
_SIGNATURES = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBPVP", "image/webp"),
    (8, b"WAVE", "audio/wave"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"OggS\0", "application/ogg"),
    (4, b"ftypisom", "video/mp4"),
    (4, b"ftypmp4", "video/mp4"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
    (0, b"\x1f\x8b\x08", "application/x-gzip"),
    (0, b"PK\x03\x04", "application/zip"),
)
_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")


class TooLarge(Exception):
    """More bytes arrived than a file may have."""


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _content_type(head: bytes) -> str:
    for offset, signature, name in _SIGNATURES:
        if head.startswith(signature, offset):
            return name
    # Never text/html: a page that somebody uploaded is not to run in a browser.
    return "application/octet-stream" if _BINARY.search(head) else "text/plain; charset=utf-8"


def _unlink(path: Path) -> None:
    # Windows refuses while the file is open somewhere: the next start clears it away.
    with contextlib.suppress(OSError):
        path.unlink()


@dataclass
class File:
    """A file of an upload. `size` is in bytes, `md5` in hex; both are set once it is complete."""

    name: str
    id: str = field(default_factory=lambda: _random(16))
    status: str = UPLOADING
    md5: str = ""
    type: str = ""
    size: int = 0
    created: datetime = field(default_factory=_now)

    def to_json(self) -> dict[str, Any]:
        """Return the file as Plik writes it."""
        return {
            "id": self.id,
            "fileName": self.name,
            "status": self.status,
            "fileMd5": self.md5,
            "fileType": self.type,
            "fileSize": self.size,
            "reference": "",
            "createdAt": self.created.isoformat(),
        }


@dataclass
class Upload:
    """Files that were uploaded, and expire, together. `ttl` is in seconds."""

    ttl: int
    one_shot: bool
    removable: bool
    id: str = field(default_factory=lambda: _random(16))
    token: str = field(default_factory=lambda: _random(32))
    created: datetime = field(default_factory=_now)
    files: dict[str, File] = field(default_factory=dict)
    expires: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.expires = self.created + timedelta(seconds=self.ttl)

    @property
    def expired(self) -> bool:
        """Whether its time has come."""
        return _now() > self.expires

    def to_json(self, *, admin: bool, download_domain: str = "") -> dict[str, Any]:
        """Return the upload as Plik writes it; only an admin gets the token."""
        return {
            "id": self.id,
            "ttl": self.ttl,
            "downloadDomain": download_domain,
            "comments": "",
            "files": [file.to_json() for file in self.files.values()],
            **({"uploadToken": self.token} if admin else {}),
            "admin": admin,
            "stream": False,
            "oneShot": self.one_shot,
            "removable": self.removable,
            "protectedByPassword": False,
            "createdAt": self.created.isoformat(),
            "expireAt": self.expires.isoformat(),
            "extend_ttl": False,
        }


#: What reading an `upload.json` that is not as it was written can raise.
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError, OverflowError)


def _read_upload(text: str) -> Upload:
    """Return what `Upload.to_json` wrote. Raises an error of `_DAMAGED`."""
    value = json.loads(text)
    upload = Upload(
        ttl=value["ttl"],
        one_shot=value["oneShot"],
        removable=value["removable"],
        id=value["id"],
        token=value["uploadToken"],
        created=datetime.fromisoformat(value["createdAt"]),
    )
    for file in value["files"]:
        if not _ID.fullmatch(file["id"]):
            raise ValueError(f"not a file id: {file['id']!r}")
        upload.files[file["id"]] = File(
            name=file["fileName"],
            id=file["id"],
            status=file["status"],
            md5=file["fileMd5"],
            type=file["fileType"],
            size=file["fileSize"],
            created=datetime.fromisoformat(file["createdAt"]),
        )
    return upload


class FileStore:
    """The uploads in one folder, which no other server may use at the same time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._uploads: dict[str, Upload] = {}

    def load(self) -> None:
        """Make the folder, or find the uploads in it and clear away what was left half-done.

        Raises:
            OSError: the folder cannot be made, read or written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._uploads.clear()
        for folder in self._folder.glob("*.upload"):
            if not _ID.fullmatch(folder.stem):
                continue
            try:
                upload = _read_upload((folder / "upload.json").read_text("utf-8"))
                if upload.id != folder.stem:
                    raise ValueError(f"it describes upload {upload.id!r}")
            except FileNotFoundError:
                shutil.rmtree(folder, ignore_errors=True)
            except _DAMAGED as e:
                logger.warning("%s is damaged and was left alone: %r", folder, e)
            else:
                self._uploads[upload.id] = upload
                self._check(upload)
        self.sweep()

    def _check(self, upload: Upload) -> None:
        for file in upload.files.values():
            path = self.path(upload, file)
            whole = path.exists() and path.stat().st_size == file.size
            if file.status != UPLOADED or not whole:
                file.status = DELETED
                _unlink(path)
        for path in self.path(upload).glob("*.part"):
            _unlink(path)

    def path(self, upload: Upload, file: File | None = None) -> Path:
        """Return where an upload's folder, or the bytes of one of its files, are."""
        folder = self._folder / f"{upload.id}.upload"
        return folder / file.id if file else folder

    def save(self, upload: Upload) -> None:
        """Write `upload.json`. Raises OSError."""
        path = self.path(upload) / "upload.json"
        new = path.with_suffix(".part")
        try:
            new.write_text(json.dumps(upload.to_json(admin=True)), "utf-8")
            new.replace(path)
        except OSError:
            _unlink(new)
            raise

    def create(self, ttl: int, one_shot: bool, removable: bool) -> Upload:
        """Return a new upload. Raises OSError when it cannot be written."""
        upload = Upload(ttl, one_shot, removable)
        self.path(upload).mkdir(mode=0o700)
        try:
            self.save(upload)
        except OSError:
            self.path(upload).rmdir()
            raise
        self._uploads[upload.id] = upload
        return upload

    def get(self, upload_id: str) -> Upload | None:
        """Return an upload, possibly expired, or None."""
        return self._uploads.get(upload_id)

    def add(self, upload: Upload, name: str, max_size: int) -> Incoming:
        """Return a new file of an upload, to be filled; its size in bytes is limited."""
        file = File(name)
        upload.files[file.id] = file
        return Incoming(self, upload, file, max_size)

    @contextlib.contextmanager
    def open(self, upload: Upload, file: File) -> Iterator[BinaryIO]:
        """Give the bytes of a complete file; a one-shot file is removed first. Raises OSError."""
        path = self.path(upload, file)
        with path.open("rb") as stream:
            if upload.one_shot:
                self.remove_file(upload, file)
            yield stream
        if file.status == REMOVED:
            _unlink(path)

    def remove_file(self, upload: Upload, file: File) -> None:
        """Forget a file, however often this is asked."""
        file.status = REMOVED
        _unlink(self.path(upload, file))

    def remove(self, upload: Upload) -> None:
        """Forget an upload with its files."""
        self._uploads.pop(upload.id, None)
        _unlink(self.path(upload) / "upload.json")
        shutil.rmtree(self.path(upload), ignore_errors=True)

    def sweep(self) -> None:
        """Forget what has expired."""
        for upload in list(self._uploads.values()):
            if upload.expired:
                self.remove(upload)


class Incoming:
    """A file on its way in.

    Use it with `with`: what was not finished at the end of the block is deleted, and its `File`
    stays in state "uploading" for good, as in Plik.
    """

    def __init__(self, store: FileStore, upload: Upload, file: File, max_size: int) -> None:
        self._file = file
        self._store = store
        self._upload = upload
        self._max_size = max_size
        self._path = store.path(upload, file)
        self._part = self._path.with_suffix(".part")
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._type = ""
        self._size = 0

    def __enter__(self) -> Incoming:
        self._out = self._part.open("wb")
        return self

    def write(self, data: bytes) -> None:
        """Take the next bytes. Raises `TooLarge` before the limit is passed, and OSError."""
        if not self._size:
            self._type = _content_type(data[:512])
        self._size += len(data)
        if self._size > self._max_size:
            raise TooLarge
        self._md5.update(data)
        self._out.write(data)

    def finish(self) -> File:
        """Return the file, complete and kept. Raises OSError when it cannot be."""
        file = self._file
        self._out.close()
        if file.status != UPLOADING or self._store.get(self._upload.id) is not self._upload:
            raise OSError(f"{self._path} was removed while it arrived")
        self._part.replace(self._path)
        file.md5, file.type, file.size = self._md5.hexdigest(), self._type, self._size
        file.status = UPLOADED
        try:
            self._store.save(self._upload)
        except OSError:
            file.status = UPLOADING
            _unlink(self._path)
            raise
        return file

    def __exit__(self, *exc: object) -> None:
        # Closing writes what is still buffered: on a full disk that fails once more.
        with contextlib.suppress(OSError):
            self._out.close()
        _unlink(self._part)
