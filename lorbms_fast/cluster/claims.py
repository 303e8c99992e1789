"""Folders elsewhere, where there are no locks, are claimed for a piece of work by a file that is created once."""

import os
import socket
from collections.abc import Sequence
from hashlib import sha256
from json import dumps

from lorbms_fast.dataloader.places import Place
from lorbms_fast.errors import UserError

FILE = "claim"


def claim(work: Place, facts: Sequence[object], whose: str) -> str:
    """Claim a folder for the work that some facts describe, and return its digest; see `check_claim`."""
    digest = sha256(dumps(facts).encode()).hexdigest()
    work.create(FILE, f"{digest} process {os.getpid()} on {socket.gethostname()}".encode())
    check_claim(work, digest, whose)
    return digest


def check_claim(work: Place, digest: str, whose: str) -> None:
    """Check a folder's claim: UserError if it is for other work than this digest's, as `whose` says, or is removed."""
    if not work.exists(FILE):
        raise UserError(f"{work.name} was removed meanwhile, by a person or by another process that has finished")
    claimed, _, by = work.read(FILE).decode().partition(" ")
    if claimed != digest:
        raise UserError(
            f"{work.name} is for other {whose}, claimed by {by}: go on with the same, choose another place, or "
            "remove it once nothing works on it"
        )
