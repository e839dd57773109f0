"""Exceptions that the command line tells in one sentence, without a traceback."""


class InputError(Exception):
    """Something the user gave cannot be used.

    The message is one readable sentence that says what is wrong, where, and what to do. The command line
    prints it without a traceback and exits with status 2.
    """


class Stopped(Exception):
    """A signal asked the work to end; what was done is kept, and the same command goes on.

    Args:
        message: what was saved.
        number: the signal's; the exit status is 128 more, as shells have it.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.status = 128 + number
