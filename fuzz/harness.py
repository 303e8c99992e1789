"""`python -m fuzz.harness READER CORPUS [libFuzzer's options]`: atheris on one reader, until it finds something.

The first byte says how the rest is meant: as the file, or, for readers of documents, as a list of choices how a
document is twisted. More than 2 GB of memory beyond what the program takes from the start counts as a finding.
"""

import os
import resource
import sys
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"

import atheris

WATCHED = ["lorbms_fast", "tarfile", "xml", "tomllib", "numpy.lib", "PIL", "torch._weights_only_unpickler", "json"]
MEMORY = 2 << 30
FILE, CHOICES = b"\x00", b"\x80"

with atheris.instrument_imports(include=WATCHED, enable_loader_override=False):
    from fuzz.damage import twisted
    from fuzz.reader import ask
    from fuzz.readers import reader


def main(name: str, corpus: Path, options: list[str]) -> None:
    """Write the corpus and fuzz; libFuzzer ends the process."""
    asked = reader(name)
    documents = asked.documents()
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(asked.seeds()):
        (corpus / f"seed-{number:03d}").write_bytes(FILE + seed)
    for number in range(16 if documents else 0):
        (corpus / f"choices-{number:03d}").write_bytes(CHOICES + bytes(range(number, number + 40)))

    def one(data: bytes) -> None:
        if documents and data[:1] >= CHOICES:
            drawn = atheris.FuzzedDataProvider(data[1:])
            document = documents[0]
            ask(asked, asked.written(twisted(document, lambda n: drawn.ConsumeIntInRange(0, n - 1))))
        else:
            ask(asked, data[1:])

    for seed in asked.seeds():
        one(FILE + seed)  # what is imported late is imported now
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    atheris.Setup([sys.argv[0], str(corpus), "-rss_limit_mb=0", "-timeout=600", *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
