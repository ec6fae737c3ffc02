"""A durable consumer, and its messages: what a stream keeps for this device until the device has
acknowledged it. This stays in the heap; what it does is in inbox, which can be dropped."""

from .errors import INVALID_ARGUMENT, check, fail, make_room
from .stream import passed, until
from .subscription import Msg


class Inbox:
    """What a stream has for a consumer; see Connection.inbox."""

    _sub = None
    # _nc, _name (STREAM.CONSUMER), _wait (s): inbox sets them

    def fetch(self, n=1, timeout=5):
        """Yield up to `n` messages: those that wait, and those that come within `timeout` s of the
        first next(). Each is asked for when the one before is done with.

        Raises STREAM_FAILED if the consumer is gone, NATS_CONNECTION_FAILED.
        """
        check("n", n, 1)
        deadline = until(timeout)
        while n:
            make_room(8192, "inbox", "jetstream")
            from .inbox import take

            msg = take(self, deadline)
            take = None  # free to be dropped
            if msg:
                n -= 1
                yield msg
            elif deadline is not None:
                return


def check_seconds(name, value):
    """Raise INVALID_ARGUMENT for more seconds than a server can count, in ns."""
    if value > 1000000000:
        raise fail(INVALID_ARGUMENT, "seconds", name, value)


class StoredMsg(Msg):
    """A message of a connection that has an inbox, with what may be said of those that come out of
    it; of a large one that is being read only in_progress(). One with links can be read once: they
    get the heap of its text."""

    claim = None  # the files that smartreceive fetched: arguments of recover.consume

    def ack(self, timeout=5):
        """It is done with, and does not come again: waits until the server has confirmed that, and
        then removes the files from the file server that were for this receiver alone.

        Raises NATS_CONNECTION_FAILED if that is not confirmed, and can be repeated; STREAM_FAILED
        if the consumer is gone.
        """
        self._say("")
        make_room(8192, "inbox", "jetstream")
        from .inbox import ack

        ack(self, timeout)
        if self.claim:
            claim = self.claim
            ack = self.claim = None  # free to be dropped
            try:
                make_room(24576, "recover", "http")
                from .recover import consume

                consume(*claim)
            except MemoryError:
                pass  # the server forgets them by itself, and it is acknowledged
            consume = None
        ack = None
        make_room(0)

    def nak(self, delay=0):
        """It can't be done now: it comes again, after `delay` s."""
        check("delay", delay, 0, float)
        check_seconds("delay", delay)
        self._say('-NAK {"delay":%d000000}' % int(delay * 1000))

    def term(self):
        """It can never be done: it does not come again."""
        self._say("+TERM")

    def in_progress(self):
        """It takes longer: the time after which it comes again begins anew."""
        self._say("+WPI")

    def _say(self, text):
        if self.reply[:8] != "$JS.ACK.":
            raise fail(INVALID_ARGUMENT, "stored", self.subject)
        if text:
            self.connection.publish(self.reply, text)

    def extend(self, nc):
        """For smartreceive: if an inbox has it, say in_progress() in time whenever `nc` is idle,
        until that has its `idle` back."""
        if self.reply[:8] == "$JS.ACK.":
            self.idle = nc.idle
            self.deadline = until(0)
            nc.idle = self.tick
            return True

    def tick(self):
        if passed(self.deadline):
            self.deadline = until(self.sub.inbox._wait / 2)
            stream = self.connection._stream
            if stream and not self.connection._busy:
                stream.post(b"PUB %s 4\r\n+WPI\r\n" % self.reply)
        if self.idle:
            self.idle()
