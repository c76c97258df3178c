#!/usr/bin/env python3
"""Records a run in a separate terminal and renders it as an animated SVG, the picture in the README.

    cargo build --release
    docs/recording/record.py                        writes docs/src/images/run.svg

What is shown is what the program drew. Only the colours are this script's, and the speed: a run that takes longer than
PLAYED seconds is played faster, and the title says so. Lines longer than SHOWN are truncated, so that the text is large
enough on a page. Viewers without animations show the last frame.
It needs Python 3.9 and nothing else, on Linux or macOS.
"""

import argparse
import codecs
import fcntl
import html
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COLUMNS, SHOWN, ROWS = 160, 119, 28
PLAYED, HELD = 14.0, 7.0  # seconds of the run as it is played, and of its last frame
FRAME = 0.2  # seconds between two frames as they are played
FONT, CELL, LINE = 15, 9.03, 20  # pixels
MARGIN, BAR = 18, 38  # pixels around the text, and of the title bar

# The colours of what is drawn, first match first: a pattern and a class for each of its groups.
COLOURS = [
    (r"^(\$) (antiphon.*)$", ("prompt", "strong")),
    (r"^(job) (\S+)$", ("dim", "strong")),
    (r"^(  checkpoint )(\S+)( \(best so far\))?$", ("dim", "dim", "good")),
    (r"^(epoch +\d+)(  .*)$", ("strong", "plain")),
    (r"^(  validation)(  .*)( \| fused)( .* %)$", ("good", "plain", "plain", "good")),
    (r"^(  \w+ +\[)([━╸]*)( *)(\].*)$", ("plain", "bar", "dim", "plain")),
    (r"^(.*elapsed.*to go)$", ("strong",)),
    (r"^(where the time went|test split, .*)$", ("title",)),
    (r"^( +(?:accuracy|data|decode) .*)$", ("dim",)),
    (r"^( *fused, \w+ \*)( .*)$", ("good", "good")),
    (r"^(best by validation|checkpoint|digest)( +)(\S+)(.*)$", ("dim", "plain", "plain", "good")),
    (r"^(succeeded after \d+ turns)$", ("good",)),
]

STYLE = """
text { font: %dpx ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace; white-space: pre; fill: #c9d1d9 }
.dim { fill: #7d8590 } .strong { fill: #f0f6fc; font-weight: 600 } .good { fill: #7ee787 } .prompt { fill: #7ee787 }
.bar { fill: #58a6ff } .title { fill: #d2a8ff; font-weight: 600 } .head { fill: #7d8590; font-size: 13px }
""" % FONT


class Screen:
    """As much of a terminal as progress bars and tables need."""

    CONTROL = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])")

    def __init__(self):
        self.rows = [[" "] * COLUMNS for _ in range(ROWS)]
        self.row = self.column = 0

    def lines(self):
        rows = ["".join(row).rstrip() for row in self.rows]
        return [row if len(row) <= SHOWN else row[: SHOWN - 1] + "…" for row in rows]

    def feed(self, text):
        """Draws text; what is left of a sequence that is not complete yet."""
        at = 0
        while at < len(text):
            if text[at] != "\x1b":
                self.put(text[at])
                at += 1
                continue
            found = self.CONTROL.match(text, at)
            if not found:
                return text[at:]
            self.control(found[1], found[2])
            at = found.end()
        return ""

    def put(self, letter):
        if letter == "\r":
            self.column = 0
        elif letter == "\n":
            self.down()
        elif letter >= " ":
            if self.column == COLUMNS:
                self.column = 0
                self.down()
            self.rows[self.row][self.column] = letter
            self.column += 1

    def down(self):
        if self.row + 1 < ROWS:
            self.row += 1
        else:
            self.rows = self.rows[1:] + [[" "] * COLUMNS]

    def control(self, arguments, name):
        number = int(arguments) if arguments.isdigit() else 1
        if name == "A":
            self.row = max(0, self.row - number)
        elif name == "B":
            self.row = min(ROWS - 1, self.row + number)
        elif name == "C":
            self.column = min(COLUMNS, self.column + number)
        elif name == "D":
            self.column = max(0, self.column - number)
        elif name == "G":
            self.column = number - 1
        elif name == "K":
            whole = arguments == "2"
            for column in range(0 if whole else self.column, COLUMNS):
                self.rows[self.row][column] = " "
        elif name == "J":
            for row in range(self.row, ROWS):
                for column in range(self.column if row == self.row else 0, COLUMNS):
                    self.rows[row][column] = " "


def record(command, folder):
    """Runs a command in a terminal; moments in seconds and what was drawn at each."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, env=environment, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    decoder, drawn = codecs.getincrementaldecoder("utf-8")("replace"), []
    while True:
        select.select([master], [], [])
        try:
            data = os.read(master, 65536)
        except OSError:  # Linux says so at the end of a terminal
            data = b""
        if not data:
            break
        drawn.append((time.monotonic() - started, decoder.decode(data)))
    os.close(master)
    if process.wait() != 0:
        sys.exit(f"{command} ended with {process.returncode}: {''.join(text for _, text in drawn)[-2000:]}")
    return drawn


def frames(drawn, typed):
    """What the screen shows, as (seconds as played, lines), without repetitions; and how much faster it is played."""
    faster = max(1.0, drawn[-1][0] / PLAYED)
    screen, rest, shown = Screen(), "", []
    screen.feed(f"$ {typed}\r\n")
    shown.append((0.0, screen.lines()))
    lead = 1.0
    pending = list(drawn)
    frame = 0
    while pending:
        frame += 1
        until = frame * FRAME
        while pending and pending[0][0] / faster <= until:
            rest = screen.feed(rest + pending.pop(0)[1])
        lines = screen.lines()
        if lines != shown[-1][1]:
            shown.append((lead + until, lines))
    return shown, faster


def intervals(shown, end):
    """Every line of text: its row, from when to when it is shown, and the text."""
    current, found = {}, []
    for moment, lines in shown:
        for row, text in enumerate(lines):
            since, before = current.get(row, (0.0, ""))
            if text != before:
                if before:
                    found.append((row, since, moment, before))
                current[row] = (moment, text)
    found += [(row, since, end, text) for row, (since, text) in current.items() if text]
    return found


def runs(text):
    """The parts of a line that have one colour: their first column, class and text."""
    for pattern, classes in COLOURS:
        found = re.match(pattern, text)
        if found:
            for index, name in enumerate(classes, 1):
                if found[index]:
                    yield found.start(index), name, found[index]
            return
    yield 0, "plain", text


def line(row, since, until, end, text):
    """One line as SVG. Its width is fixed, so that every font keeps the columns."""
    y = BAR + MARGIN + FONT + row * LINE
    parts = []
    for column, name, part in runs(text):
        # Words with one space between them stay together; wider gaps are kept by the positions of what is around them.
        for words in re.finditer(r"\S+(?: \S+)*", part):
            x, width = MARGIN + (column + words.start()) * CELL, len(words[0]) * CELL
            style = "" if name == "plain" else f' class="{name}"'
            shown = html.escape(words[0], quote=False)
            parts.append(f'<tspan x="{x:.4g}" textLength="{width:.4g}"{style}>{shown}</tspan>')
    last = until >= end
    if last and since == 0:
        return f'<text y="{y}">{"".join(parts)}</text>'
    if last:
        change = f'<set attributeName="visibility" to="hidden" begin="l.begin" dur="{since:.3g}s"/>'
        return f'<text y="{y}">{"".join(parts)}{change}</text>'
    change = f'<set attributeName="visibility" to="visible" begin="l.begin+{since:.4g}s" dur="{until - since:.3g}s"/>'
    return f'<text y="{y}" visibility="hidden">{"".join(parts)}{change}</text>'


def svg(shown, title):
    end = shown[-1][0] + HELD
    width, height = round(2 * MARGIN + SHOWN * CELL), BAR + 2 * MARGIN + ROWS * LINE
    lights = "".join(
        f'<circle cx="{20 + 20 * index}" cy="{BAR / 2:g}" r="6" fill="{colour}"/>'
        for index, colour in enumerate(["#ff5f57", "#febc2e", "#28c840"])
    )
    body = "\n".join(line(row, since, until, end, text) for row, since, until, text in intervals(shown, end))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>{html.escape(title)}</title>
<style>{STYLE}</style>
<rect width="{width}" height="{height}" rx="10" fill="#0d1117" stroke="#30363d"/>
<path d="M0 {BAR}H{width}" stroke="#30363d"/>
{lights}
<text class="head" x="{width / 2:g}" y="{BAR / 2 + 4:g}" text-anchor="middle">{html.escape(title)}</text>
<rect width="0" height="0"><animate id="l" attributeName="x" values="0" begin="0s;l.end" dur="{end:.4g}s"/></rect>
{body}
</svg>
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/antiphon", help="the program")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/src/images/run.svg", help="the picture")
    parser.add_argument("more", nargs="*", help="more arguments of `antiphon run`, after --")
    options = parser.parse_args()
    arguments = ["run", "examples/spoken-digits.yaml", *options.more]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "examples", Path(folder, "examples"))
        drawn = record([str(options.binary.resolve()), *arguments], folder)
    shown, faster = frames(drawn, " ".join(["antiphon", *arguments]))
    title = "antiphon run" + (f" ({drawn[-1][0]:.0f} s, played {faster:.1f} times faster)" if faster > 1.05 else "")
    picture = svg(shown, title)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(picture, encoding="utf-8")
    print(f"{options.output}: {len(shown)} frames, {len(picture.encode()) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
