#!/usr/bin/env python3
"""Writes tests/golden from transformers, Pillow, scipy and the gguf package.

    pip install torch transformers==5.23.0 safetensors pillow scipy gguf
    scripts/reference.py [SECTION ...]        # all sections without arguments

The fixtures are committed; tests need neither Python nor network.
"""
import sys
from pathlib import Path

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
SECTIONS = {}


def section(function):
    """Registers a writer of fixtures under its name."""
    SECTIONS[function.__name__] = function
    return function


# Each section below is independent: it imports what it needs and writes its own files.


if __name__ == "__main__":
    names = sys.argv[1:] or list(SECTIONS)
    for name in names:
        print(f"writing {name}")
        SECTIONS[name](GOLDEN)
