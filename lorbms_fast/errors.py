"""The one exception that a user's mistake ends in."""


class UserError(Exception):
    """A mistake that the user can mend: the message names the thing, its value and the remedy, on one line.

    The command line prints it without a traceback and exits with status 2.
    """
