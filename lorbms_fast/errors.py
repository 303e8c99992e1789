"""The one exception that a user's mistake ends in, and how others are told of."""

import re
import shlex

LONGEST = 600
"""Max. characters of a message; the middle of a longer one is left out."""


class UserError(Exception):
    """A mistake that the user can mend: the message names the thing, its value and the remedy, on one line.

    The command line prints it without a traceback and exits with status 2. Values come from strangers' files: line
    breaks become spaces, characters that a terminal would obey are written as escapes, and long ones are cut.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str, longest: int = LONGEST) -> str:
    """Turn a text into one printable line; of a longer one, keep beginning and end.

    >>> one_line("'a  b.jpg' is no picture:\\n    go on with  lorbms-fast prepare")
    "'a  b.jpg' is no picture: go on with  lorbms-fast prepare"
    """
    if len(text) > longest:
        text = f"{text[: longest // 2]} ... {text[-longest // 2 :]}"
    words = re.sub(r" *[^\S ]\s*", " ", text).strip()  # spaces alone stay: names have them, and commands to copy
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)


def as_word(name: object) -> str:
    """Write a file's name as a shell takes it for one word, in a command to be copied.

    >>> as_word("runs/first"), as_word("my run")
    ('runs/first', "'my run'")
    """
    return shlex.quote(str(name))


def origin(error: BaseException) -> BaseException:
    """Find the first error of a chain, which the others come from."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def said(error: BaseException) -> str:
    """Name an error's origin on one line.

    >>> said(RuntimeError("An exception occurred in a subprocess:\\n\\nTraceback ...\\nOSError: no compiler\\n"))
    'RuntimeError: An exception occurred in a subprocess: OSError: no compiler'
    >>> said(SyntaxError("in line 2:\\n    x = y z\\n          ^"))
    'SyntaxError: in line 2:'
    """
    error = origin(error)
    text = getattr(error, "error_message", None) or str(error)  # Triton's own begin with a listing
    first, *others = text.strip().split("\n")
    last = others[-1].strip() if others else ""
    if first.endswith(":") and last.strip("^~ "):  # torch's, of a compiler's process, ends with that process's error
        first += f" {last}"
    return f"{type(error).__name__}: {first[:200]}"
