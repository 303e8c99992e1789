"""`python -m lorbms_fast`, which torchrun too can start, is `lorbms-fast`."""

from lorbms_fast.cli import main

if __name__ == "__main__":
    main()
