"""Numbers of things in words."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun, whose plural ends in s if none is given.

    >>> counted(1, "image"), counted(1200, "image"), counted(0, "entry", "entries")
    ('1 image', '1,200 images', '0 entries')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
