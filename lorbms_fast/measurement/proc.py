"""Amounts of memory as Linux tells them."""

from pathlib import Path

STATUS = Path("/proc/self/status")
"""Of this process: `VmSize`, `VmRSS`, its greatest value `VmHWM`, `RssAnon`."""
MEMORY = Path("/proc/meminfo")
"""Of the machine: `MemAvailable`."""


def bytes_told(name: str, file: Path = STATUS) -> int:
    """The bytes in the line of a name."""
    line = next(line for line in file.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
