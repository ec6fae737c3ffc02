"""errors: one exception, known codes, the walkthrough's error response."""

import json
import re
import uuid

from natsbridge import errors
from natsbridge.errors import NATSBridgeError


def test_string_names_code_and_message() -> None:
    e = NATSBridgeError("UPLOAD_FAILED", "no room", {"url": "http://x"})
    assert str(e) == "UPLOAD_FAILED: no room"
    assert (e.code, e.message, e.details) == ("UPLOAD_FAILED", "no room", {"url": "http://x"})
    assert isinstance(e, Exception)


def test_details_default_to_an_empty_dict_of_their_own() -> None:
    first, second = NATSBridgeError("A", "b"), NATSBridgeError("A", "b")
    first.details["x"] = 1
    assert second.details == {}


def test_to_dict_is_the_error_response_of_the_walkthrough() -> None:
    e = NATSBridgeError("DOWNLOAD_FAILED", "gone", {"correlation_id": "c", "attempts": 5})
    response = e.to_dict(send_to="reply.here")
    assert list(response) == ["correlation_id", "msg_id", "timestamp", "send_to", "error"]
    assert response["correlation_id"] == "c"
    assert response["send_to"] == "reply.here"
    assert response["msg_id"]
    assert response["error"] == {
        "code": "DOWNLOAD_FAILED",
        "message": "gone",
        "details": {"correlation_id": "c", "attempts": 5},
    }
    json.dumps(response)


def test_timestamp_is_utc_with_milliseconds_and_z() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", errors.utc_timestamp())


def test_a_new_uuid_is_one_of_version_4() -> None:
    ids = {errors.new_uuid() for _ in range(1000)}
    assert len(ids) == 1000
    for text in ids:
        found = uuid.UUID(text)
        assert (str(found), found.version, found.variant) == (text, 4, uuid.RFC_4122)


def test_codes_are_their_own_names() -> None:
    assert len(errors.CODES) == 12
    for code in errors.CODES:
        assert getattr(errors, code) == code
