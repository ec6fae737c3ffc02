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
write: the connection is in the middle of a message: let on_progress and sources only take notes, \
or use another connection
header: the header %r is no name of letters, digits and dashes, or its value is no str of one line
field: %s is not a str of at most %d bytes
headers: the headers of an upload must be ASCII
https: %s wants TLS, and nobody told which CA to trust: pass tls to plik_upload, or to connect() for smartsend \
and smartreceive (tls={"ca": "ca.pem"})
folder: %r is no folder that exists, and no callable; make it first
metadata: metadata must be a dict of JSON values, at most 4096 bytes of them
msg: smartreceive takes a Msg, not %r; next() returns None when nothing came
read: the message on %s is no longer there: it was read already, or another call read past it; \
use a large message before the next call
json: a spool keeps options that are JSON, no %s
limit: %s can't be %r: it is a number (of bytes, things or attempts a whole one) from %d on
mqtt: MQTT knows no %s; connect to nats:// or tls:// for them
mqtt-sub: MQTT knows no queue groups, and one subscription for each subject; %s has one
mqtt-servers: the servers must all be mqtt:// and mqtts://, or none of them
payloads: data must be a list of at most 64 payloads (dataname, value, payload_type)
rewind: a source can't be read again: %s; pass bytes or a seekable file
payload: the payload %r is no bytes and no str
scheme: the server's URL begins with %s://; this version connects to nats:// and tls://, mqtt:// and mqtts://
server: server %r has no host and port; write nats://host:4222
servers: servers must be a URL such as nats://192.168.1.10:4222, or a list of them
sign: jwt and nkey need sign, a function that signs the server's nonce: sign(nonce) -> 64 bytes
sink: sink must return a stream, which has write(), or None, not %r
sink-io: the sink failed: %s; check the space and the folder it writes to
source: the source of payload %r failed while it was sent: %s; nothing was published, and if it went \
inside the message, the next call connects again
subject: subject %r can't be used; use dotted words such as 'lab.camera': no white space, no control \
character, no empty word, and wildcards only to subscribe
tls-ca: TLS needs a CA to verify the server, since a board has no store of them; pass \
tls={"ca": "ca.pem"} (a path, or bytes), or, where nothing secret is sent, tls={"verify": False}
tls-file: tls: a certificate or key can't be used (%s); give paths, or bytes of PEM or DER
tls-key: tls has the unknown key %r; use %s
tls-none: this port of MicroPython has no TLS
tls-verify: this MicroPython can't verify a TLS server; take 1.21 or newer, or, where nothing secret \
is sent, pass tls={"verify": False}
url: the URL %s is refused: it must be http://host[:port]/path or https, of at most 1024 characters, with none \
in it that two programs can read in two ways
topic: the subject %r has no topic in MQTT, because of a slash, + or # in its words; take dotted words \
such as 'lab.camera'
will: a will is (subject, payloads), with payloads as smartsend takes them, of a mqtt:// connection
session: the server keeps the session of a client with an id: pass id
unsized: an upload handler and a will need the size of their data; pass bytes or a seekable file
kinds: nats_connection must be what connect() returned, a handler a function, and removable a bool
name: %r is no name of a stream or consumer: it has no dots, wildcards, slashes, quotes or white space
seconds: %s can't be %r: it is 1000000000 s at most
spool: %r can't be used for a spool (%s): it needs a folder of its own, in one that exists
stored: the message on %s is of no inbox: nothing can be said of it
unsubbed: the subscription to %s has ended; subscribe again
""",
    INVALID_PAYLOAD_TYPE: """
json: payload %r can't be sent as %s: JSON takes no %s (keys are str; numbers are finite and of at \
most 63 digits; at most 32 levels)
payload: payload %r can't be sent as %s: it is of type %s
str: payload %r can't be sent as %s: it is of type %s; for a file pass open(path, 'rb')
stream: payload %r can't be sent as %s: it is a text stream, a %s; open the file with 'rb'
table: payload %r can't be sent as %s: it is of type %s, no list of dicts
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
attempts: %r always ends early at %s: %s; ask its sender to send it again
changed: %r changed between two attempts to fetch it; ask its sender to send it again
claim: payload %r says it has %d bytes, in a message of %d
digest: payload %r does not have the SHA-256 of what was sent; ask its sender again
size: payload %r has %d bytes and says it has %d; ask its sender to send it again
""",
    PAYLOAD_TOO_LARGE: """
dropped: %d messages on %s were dropped, because %d bytes of others waited: call next() more often, \
or nc.next() to take them in order
heap: a payload of %d bytes does not fit the heap (%d free); receive files into a folder and values \
into a stream (see sink), or read a message in pieces with readinto()
limit: payload %r has %d bytes or more, and max_payload_size is %d
payloads: the message has %d bytes without its payloads, and the broker takes %d; send fewer payloads \
at a time
pending: a message of %d bytes does not fit the queue of %d bytes (pending_size), where %d wait for \
the connection
spool: a message of %d bytes or more does not fit the spool of %d bytes, which has %d
publish: the message has %d bytes and %s takes %d; send it with smartsend
memory: the heap has no room for this message; free some, send and receive files instead of values
""",
    "STREAM_FAILED": """
stream: no stream takes what is published to %s; make one: natsbridge stream create NAME %s
store: the stream did not take the message to %s: %s
off: the server %s has no JetStream, or no such stream
refused: the server %s refused: %s
other: %s is there for %s, not for %s: take another name for that
foreign: %s is there with its %s %r: take another name
""",
    NATS_CONNECTION_FAILED: """
unconfirmed: the server has not confirmed the acknowledgement of the message on %s: repeat it, or it \
comes again
mute: the server %s does not answer for its streams
silent: no stream has acknowledged the message to %s in time; it may be stored all the same
connection: the connection to %s broke in %s(): %s
close: the connection is closed; call connect() again
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
attempts: %r can't be uploaded to %s: %s; check that the file server runs there, and try again
login: %r can't be uploaded: %s answered %s; write http://user:password@host, or pass headers to plik_upload
plik: what answers at %s is not a Plik server
refused: %r can't be uploaded: %s answered %s
handler: the file server's handler gave %r for payload %r; it must return what the walkthrough's \
contract says
""",
    DOWNLOAD_FAILED: """
lost: a file is gone: its message has waited in the stream %s for longer than the file server keeps \
files, 86400 s or less; let the stream's max_age be shorter than that
attempts: %r can't be fetched from %s: %s; check that the file server runs there, and try again
login: %r can't be fetched: %s answered %s; write http://user:password@host as fileserver_url
refused: %r can't be fetched: %s answered %s
handler: the file server's handler gave %r for payload %r; it must return what the walkthrough's \
contract says
""",
    URL_NOT_ALLOWED: """
odd: a payload is at %s, which is refused: its sender must give an http or https URL without a login
url: a payload is at %s, which is not under fileserver_url (%s); if you trust that server, pass \
allowed_urls=[%r]
""",
}


def text(code, key, values):
    """The message of an error."""
    lines = TEXTS[code]
    at = lines.index("\n" + key + ": ") + len(key) + 3
    return lines[at : lines.index("\n", at)] % values
