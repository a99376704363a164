"""Write the golden files anew after a change that is meant: ``python -m tests.golden``. Then look at the difference."""

from __future__ import annotations

import shutil

from tests.golden.requests import DATA, all_requests

if __name__ == "__main__":
    shutil.rmtree(DATA, ignore_errors=True)
    for path, content in all_requests():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
