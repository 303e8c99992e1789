"""Small files that claim much take little memory: 1 GB of address space is left, 64 MB may be used."""

import os
import subprocess
import sys


def test_nothing_is_taken_for_what_a_header_claims():
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.bombs"],
        capture_output=True,
        text=True,
        env=os.environ | {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.count("ok ") >= 24
