"""subjects: what may go on the wire."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsbridge import subjects
from natsbridge.errors import NATSBridgeError

GOOD = ["a", "lab.camera", "/chat/user/v1/message", "größe.x", "a-b_c.1", "$SYS.x", "a.b*c", "x>y"]
BAD = [
    "",
    " ",
    "a b",
    "a\tb",
    "a\r\nPUB x 0\r\n",
    "a\x00",
    "a\x7f",
    "a..b",
    ".a",
    "a.",
    ".",
    "\u2028",
]
WILD = ["*", ">", "a.*", "a.>", "*.b"]


@pytest.mark.parametrize("subject", GOOD)
def test_good_subjects_pass(subject: str) -> None:
    subjects.check_subject(subject)
    subjects.check_subject(subject, wildcards=True)
    assert subjects.is_subject(subject)


@pytest.mark.parametrize("subject", [*BAD, *WILD, None, 5, b"a", "x" * 1025, "\ud800"])
def test_bad_subjects_are_refused(subject: object) -> None:
    with pytest.raises(NATSBridgeError) as e:
        subjects.check_subject(subject)
    assert e.value.code == "INVALID_ARGUMENT"
    assert "\n" not in e.value.message
    assert not subjects.is_subject(subject)


@pytest.mark.parametrize("subject", WILD)
def test_wildcards_are_for_subscriptions(subject: str) -> None:
    subjects.check_subject(subject, wildcards=True)


@pytest.mark.parametrize("subject", [">.a", "a.>.b", *BAD])
def test_bad_subscriptions_are_refused(subject: str) -> None:
    with pytest.raises(NATSBridgeError):
        subjects.check_subject(subject, wildcards=True)


@pytest.mark.parametrize("queue", ["a b", "a\r\n", 3])
def test_bad_queue_groups_are_refused(queue: object) -> None:
    subjects.check_queue("")
    subjects.check_queue("workers")
    with pytest.raises(NATSBridgeError):
        subjects.check_queue(queue)


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        ("*", "a.b", False),
        ("a.b", "a", False),
        ("a", "a.b", False),
    ],
)
def test_matching_follows_tokens(pattern: str, subject: str, expected: bool) -> None:
    assert subjects.matches(pattern, subject) is expected


@given(st.text())
def test_what_passes_can_stand_in_a_control_line(subject: str) -> None:
    if subjects.is_subject(subject):
        assert len(subject.split()) == 1
        assert len(subject.encode()) <= 1024
