"""What the errors say: by code, a line for each key. Loaded when one is raised, and dropped again:
see errors.fail."""

from .errors import (
    DESERIALIZATION_ERROR,
    DOWNLOAD_FAILED,
    INTEGRITY_ERROR,
    INVALID_ARGUMENT,
    INVALID_ENVELOPE,
    INVALID_PAYLOAD_TYPE,
    INVALID_TRANSPORT,
    NATS_CONNECTION_FAILED,
    PAYLOAD_TOO_LARGE,
    UPLOAD_FAILED,
    URL_NOT_ALLOWED,
)

# fmt: off
TEXTS = {
    INVALID_ARGUMENT: """
argument: %s
busy: the connection is in the middle of a message: let on_progress and sources only take notes, \
or use another connection
header: the header %r: %r is no name of letters, digits and dashes with a str of one line
field: %s is not a str of at most %d bytes
folder: the folder %r does not exist; make it first
msg: smartreceive takes a Msg, as next() returns it, not %r
msg-gone: the message on %s is no longer there: it was read already, or another call read past it; \
use a large message before the next call
rewind: a source can't be read again: %s; pass bytes or a seekable file
scheme: the server's URL begins with %s://; this version connects to nats:// and tls://
server: server %r has no host and port; write nats://host:4222
servers: servers is empty; give a URL such as nats://192.168.1.10:4222
sign: jwt and nkey need sign, a function that signs the server's nonce: sign(nonce) -> 64 bytes
sink: sink must be None, a folder's path or a callable
sink-io: the sink failed: %s; check the space and the folder it writes to
source: the source of payload %r failed while it was sent (%s); the message was not published, \
and the next call connects again
subject: subject %r can't be used; use dotted words such as 'lab.camera': no white space, no control \
character, no empty word, and wildcards only to subscribe
tls-ca: TLS needs a CA to verify the server, since a board has no store of them; pass \
tls={"ca": "ca.pem"} (a path, or bytes), or, where nothing secret is sent, tls={"verify": False}
tls-file: tls: a certificate or key can't be used (%s); give paths, or bytes of PEM or DER
tls-key: tls has the unknown key %r; use %s
tls-none: this port of MicroPython has no TLS
tls-verify: this MicroPython can't verify a TLS server; take 1.21 or newer, or, where nothing secret \
is sent, pass tls={"verify": False}
unsized: %s needs the size of its data; pass bytes or a seekable file
unsubbed: the subscription to %s has ended; subscribe again
""",
    INVALID_PAYLOAD_TYPE: """
mismatch: payload %r can't be sent as %s: it is %s
type: payload %r has the unknown type %r; use one of %s
""",
    INVALID_TRANSPORT: """
transport: payload %r has the unknown transport %r; known are direct and link
""",
    INVALID_ENVELOPE: """
envelope: the message of %d bytes is no envelope: %s
spool: a payload's data comes before its name and type, so that the sink can't be asked; pass \
spool_dir, a folder for such data
""",
    DESERIALIZATION_ERROR: """
base64: the data of payload %r is not base64 (standard alphabet, padded, no line breaks)
value: payload %r is no %s: %s; check the type its sender gave
""",
    INTEGRITY_ERROR: """
claim: payload %r says it has %d bytes, in a message of %d
digest: payload %r does not have the SHA-256 of what was sent; ask its sender again
size: payload %r has %d bytes and says it has %d; ask its sender to send it again
""",
    PAYLOAD_TOO_LARGE: """
dropped: %d messages on %s were dropped, because %d bytes of others waited: call next() more often, \
or nc.next() to take them in order
env-heap: the envelope of %d bytes does not fit the heap
heap: a payload of %d bytes does not fit the heap (%d free); receive files into a folder and values \
into a stream: see sink
limit: payload %r has %d bytes or more, and max_payload_size is %d
msg-heap: a message of %d bytes does not fit the heap; give it to smartreceive with a sink, or read \
it in pieces with readinto()
no-room: the message has %d bytes without its payloads, and the broker takes %d; send fewer payloads \
at a time
pending: a message of %d bytes does not fit the queue of %d bytes (pending_size), where %d wait for \
the connection
publish: the message has %d bytes and %s takes %d; send it with smartsend
""",
    NATS_CONNECTION_FAILED: """
broke: the connection to %s broke while %s: %s
closed: the connection is closed; call connect() again
connect: no NATS server took the connection%s; check that it runs, its address, and the user, \
password or token
lost: the connection was lost (%s); call connect() again, or connect with reconnect=True
headers: the server %s takes no headers
nobody: nobody listens on %s
refused: the server refused: %s
unsent: the connection is closed, and %d bytes of queued messages were not sent
unsure: the connection was lost since the last flush, and messages published before may be too: %s
""",
    UPLOAD_FAILED: """
handler: the file server's handler %s %r for payload %r; it must return what the walkthrough's \
contract says
source: the source of payload %r failed while it was uploaded: %s
""",
    DOWNLOAD_FAILED: """
handler: the file server's handler %s %r for payload %r; it must return what the walkthrough's \
contract says
""",
    URL_NOT_ALLOWED: """
url: a payload is at %s, which is not under fileserver_url (%s); if you trust that server, pass \
allowed_urls=[%r]
""",
}
