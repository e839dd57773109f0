"""The one exception that means the user's input, not the program, is at fault."""


class InputError(Exception):
    """Something the user gave cannot be used.

    The message is one readable sentence that says what is wrong, where, and what to do. The command line
    prints it without a traceback and exits with status 2.
    """
