"""The exceptions that a user sees as a single line instead of a traceback."""

from __future__ import annotations


class UserError(Exception):
    """A mistake that the user can mend: wrong value, missing file, damaged directory, full disk.

    The message is one line: the field, the value, what is wrong, and the way out.
    The command line prints it and exits with status 2; library callers catch it like any exception.
    """


class Stopped(Exception):
    """The process was asked to end (SIGTERM) and did so in good order: the same command goes on from there."""
