"""PNG files of SVG figures, drawn by headless Chromium.

    mistralrs-prune report … --figures figures
    python scripts/figures_png.py figures [--scale 2]

The page has a button for the same. Needs `chromium` (or --browser) and nothing
else: no SVG library draws text without fonts, and a browser has both.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path


def size(svg: Path) -> tuple[int, int]:
    """Width and height of a figure in pixels, rounded up."""
    found = re.search(r'<svg [^>]*?width="([\d.]+)" height="([\d.]+)"', svg.read_text())
    if not found:
        sys.exit(f"{svg}: expected width and height of an <svg>, found none")
    return tuple(-int(-float(length) // 1) for length in found.groups())


def draw(svg: Path, png: Path, browser: str, scale: float) -> None:
    width, height = size(svg)
    page = f"<style>body{{margin:0}}svg{{display:block}}</style>{svg.read_text()}"
    with tempfile.TemporaryDirectory() as folder:
        html = Path(folder) / "figure.html"
        html.write_text(f'<!DOCTYPE html><meta charset="utf-8">{page}')
        command = [
            browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={folder}/profile", f"--force-device-scale-factor={scale}",
            f"--window-size={width},{height}", f"--screenshot={png}", html.as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode or not png.exists():
        sys.exit(f"{svg}: {browser} drew nothing\n{done.stderr}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with .svg files")
    parser.add_argument("--scale", type=float, default=2, help="pixels per CSS pixel")
    parser.add_argument("--browser", default="chromium", help="Chromium or Chrome")
    args = parser.parse_args()
    figures = sorted(args.folder.glob("*.svg"))
    if not figures:
        sys.exit(f"{args.folder}: expected .svg files, found none")
    for svg in figures:
        png = svg.with_suffix(".png").resolve()
        png.unlink(missing_ok=True)
        draw(svg, png, args.browser, args.scale)
        print(png)


if __name__ == "__main__":
    main()
