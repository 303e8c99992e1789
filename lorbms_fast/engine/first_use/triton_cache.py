"""The folder in which Triton keeps what it compiles: no kernel is launched where it cannot be written."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from lorbms_fast.progress import tqdm


def use_writable_cache(tell: bool = True) -> None:
    """Have Triton keep kernels in a folder of this process, in which nothing lasts, if its own cannot be written."""
    from triton import knobs

    place = knobs.cache.dir
    try:
        if not place:
            raise FileNotFoundError(0, "it has no name")
        Path(place).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            return
    except OSError as error:
        folder = tempfile.mkdtemp(prefix="lorbms-fast-triton-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["TRITON_CACHE_DIR"] = folder  # processes that are started from here read it too
        if tell:
            tqdm.write(
                f"Triton cannot keep kernels in '{place}' ({error.strerror}): they are compiled for this run alone; "
                "set TRITON_CACHE_DIR to a folder that can be written"
            )
