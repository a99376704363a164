"""``python -m hookline`` is the command ``hookline``."""

from __future__ import annotations

from hookline.cli import main

if __name__ == "__main__":
    main()
