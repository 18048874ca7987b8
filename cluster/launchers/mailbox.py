"""What carries messages between the workers of a Ray cluster and the terminal: an actor. It imports no torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .worker import Event


class Mailbox:
    """Carries messages from the workers to the terminal, and the wish to end to the workers."""

    def __init__(self) -> None:
        self._posted: list[Event] = []
        self._endings: list[Event] = []
        self._signal, self._groups = 0, 0

    def post(self, event: "Event") -> None:
        """Add an event: progress, a note, a worker's start or its ending."""
        if event["kind"] == "start":
            self._groups += 1
            event["group"] = self._groups
            self._endings.clear()  # of the group before this one
        self._posted.append(event)
        if event["kind"] == "ending":
            self._endings.append(event)

    def take(self) -> "list[Event]":
        """Take out what came since the last call."""
        taken, self._posted = self._posted, []
        return taken

    def endings(self) -> "list[Event]":
        """List how workers of the present group ended so far."""
        return self._endings

    def ask(self, signum: int) -> None:
        """Ask the workers to save and end."""
        self._signal = signum

    def asked(self) -> int:
        """Return the signal that asked for the end, or 0."""
        return self._signal
