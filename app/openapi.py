"""The command that writes the documents.

    python -m app.openapi [--check] [DIR]

writes openapi.json, asyncapi.yaml and the tables of calls, files and events to openapi/ (or DIR); with --check it tells which are stale
and exits 1.
"""

import argparse
import sys
from pathlib import Path
from typing import Final

from app.main import create_app
from app.schemas.documents import documents
from app.settings import Settings

DIRECTORY: Final = Path(__file__).resolve().parent.parent / "openapi"


def main(argv: list[str] | None = None) -> int:
    """Write the documents, or check that they are fresh."""
    parser = argparse.ArgumentParser(prog="python -m app.openapi", description="Write the service's documents.")
    parser.add_argument("directory", nargs="?", type=Path, default=DIRECTORY)
    parser.add_argument("--check", action="store_true", help="exit 1 when a document is stale")
    args = parser.parse_args(argv)
    stale = []
    args.directory.mkdir(exist_ok=True)
    for name, content in documents(create_app(Settings())).items():
        path = args.directory / name
        if not path.exists() or path.read_text() != content:
            stale.append(name)
            if not args.check:
                path.write_text(content)
    if args.check and stale:
        print(f"stale: {', '.join(stale)}: run make openapi", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
