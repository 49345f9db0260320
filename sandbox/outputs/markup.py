"""Markup made text: what of HTML and SVG can be read, and nothing that runs or loads.

The markup is hostile. Scripts and styles are taken out first, what is left is looked at up to a
bound, and the parser of the standard library is never told that its input has ended: then nothing
is parsed twice, and what it takes for unfinished is left out.

https://html.spec.whatwg.org/, https://www.w3.org/TR/SVG2/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser

from sandbox.outputs.plain import plain
from sandbox.outputs.tables import Table
from sandbox.outputs.words import MAX_WORDS, words

MAX_MARKUP = 64 * 1024
"""The characters that are looked at, without scripts and styles."""
PIECE = 8 * 1024
"""What is given to the parser at once."""
MAX_EVENTS = 3000
"""The tags and texts after which no further piece is read, of the beginning and of the end."""
MAX_TABLES = 8
"""The tables inside each other that are told apart."""
MAX_LABELS = 80
MAX_ADDRESS = 200

_CODE = re.compile("<(script|style)", re.IGNORECASE)
_CODE_ENDS = {tag: re.compile(f"</{tag}", re.IGNORECASE) for tag in ("script", "style")}
_UNSEEN = ("script", "style", "template", "noscript", "title")
_BLOCKS = frozenset(
    [
        *("address", "article", "aside", "blockquote", "body", "br", "caption", "center"),
        *("dd", "details", "div", "dl", "dt", "fieldset", "figcaption", "figure"),
        *("footer", "form", "header", "hr", "legend", "li", "main", "nav", "ol"),
        *("p", "pre", "section", "summary", "text", "ul", "h1", "h2", "h3", "h4", "h5", "h6"),
    ]
)
_THINGS = {
    "img": "picture",
    "image": "picture",
    "iframe": "frame",
    "embed": "object",
    "object": "object",
    "video": "video",
    "audio": "audio",
    "canvas": "drawing",
}


def page_text(markup: str) -> str:
    """The text of HTML: paragraphs, lists and tables as lines; empty when nothing can be read."""
    page = _Page()
    left_out = page.read("".join(_without_code(markup)))
    text = plain(page.text())
    if text and left_out:
        text += f"\n[… {left_out:,} characters of HTML left out in between …]"
    return text


def drawing_text(markup: str) -> str:
    """The size, the title and the labels of an SVG picture."""
    drawing = _Drawing()
    drawing.read("".join(_without_code(markup)))
    return plain(drawing.text())


class _Reader(HTMLParser):
    """What both kinds of markup have in common."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._events = 0

    def read(self, markup: str) -> int:
        """Read markup, of a long one the beginning and the end, and return how many characters
        are left out."""
        left_out = max(0, len(markup) - MAX_MARKUP)
        if not left_out:
            return self._take(markup)
        first = MAX_MARKUP * 3 // 4
        last = max(markup.find("<", first + left_out), first + left_out)
        left_out = last - first + self._take(markup[:first])
        return left_out + self._take(markup[last:])

    def _take(self, markup: str) -> int:
        """Read some of it, and return how many characters are left out."""
        self._events = at = 0
        try:
            while at < len(markup) and self._events < MAX_EVENTS:
                self.feed(markup[at : at + PIECE])
                at += PIECE
            if not self.rawdata.startswith("<"):
                self.handle_data(unescape(self.rawdata))
        except AssertionError:  # how the parser refuses a declaration that it does not know
            pass
        self.rawdata = ""
        self.clear_cdata_mode()
        return max(0, len(markup) - at)


class _Page(_Reader):
    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []
        self._line: list[str] = []
        self._tables: list[Table] = []
        self._around: list[list[str]] = []
        """The line in which each of them stands."""
        self._lists: list[int | None] = []
        self._unseen = ""
        self._prefix = ""
        self._is_verbatim = False
        self._address = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._events += 1
        if self._unseen:
            return
        if tag in _UNSEEN:
            self._unseen = tag
        elif tag == "table":
            self._end_line()
            if len(self._tables) < MAX_TABLES:
                self._tables.append(Table())
                self._around.append(self._line)
                self._line = []
        elif self._tables and tag == "tr":
            self._end_cell()
            self._tables[-1].add_row()
        elif self._tables and tag in ("td", "th"):
            self._end_cell()
            self._tables[-1].add_cell(is_head=tag == "th")
        elif tag in _BLOCKS:
            self._begin_block(tag)
        elif tag in _THINGS:
            self._line.append(f" [{_named(_THINGS[tag], dict(attrs))}] ")
        elif tag == "a":
            self._address = _address(dict(attrs).get("href"))

    def handle_endtag(self, tag: str) -> None:
        self._events += 1
        if self._unseen:
            if tag == self._unseen:
                self._unseen = ""
        elif tag == "table" and self._tables:
            self._end_cell()
            table, self._line = self._tables.pop(), self._around.pop()
            if self._tables:
                self._line.append(f" {table.in_one_line()} ")
            else:
                self._lines += table.lines()
        elif tag in ("tr", "td", "th") and self._tables:
            self._end_cell()
        elif tag in _BLOCKS:
            self._end_line()
            if tag in ("ul", "ol") and self._lists:
                self._lists.pop()
            self._is_verbatim = self._is_verbatim and tag != "pre"
        elif tag == "a" and self._address:
            if self._address not in "".join(self._line[-2:]):
                self._line.append(f" ({self._address})")
            self._address = ""

    def handle_data(self, data: str) -> None:
        self._events += 1
        if self._unseen:
            return
        if self._is_verbatim and not self._tables:
            first, *more = data.split("\n")
            self._line.append(first)
            for line in more:
                self._end_line()
                self._line.append(line)
        else:
            self._line.append(data)

    def text(self) -> str:
        """All that was read."""
        while self._tables:
            self.handle_endtag("table")
        self._end_line()
        return "\n".join(self._lines)

    def _begin_block(self, tag: str) -> None:
        self._end_line()
        if tag in ("ul", "ol"):
            self._lists.append(0 if tag == "ol" else None)
        elif tag == "li":
            depth = min(len(self._lists), MAX_TABLES)
            mark = "-"
            if self._lists and (count := self._lists[-1]) is not None:
                self._lists[-1] = count + 1
                mark = f"{count + 1}."
            self._prefix = "  " * (depth - 1) + mark + " "
        elif tag[0] == "h" and tag[1:].isdigit():
            self._prefix = "#" * int(tag[1:]) + " "
        elif tag == "pre":
            self._is_verbatim = True

    def _end_line(self) -> None:
        if self._tables:  # lines of a cell are words of it
            self._line.append(" ")
            return
        line = "".join(self._line)
        self._line.clear()
        line = line.rstrip() if self._is_verbatim else " ".join(line.split())
        if line:
            self._lines.append(self._prefix + line)
            self._prefix = ""

    def _end_cell(self) -> None:
        self._tables[-1].write(words("".join(self._line)))
        self._line.clear()


class _Drawing(_Reader):
    def __init__(self) -> None:
        super().__init__()
        self._size = ""
        self._open = ""
        self._is_label = False
        self._title: list[str] = []
        self._labels: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._events += 1
        found = dict(attrs)
        if tag == "svg" and not self._size:
            self._size = _size(found)
        elif tag in ("title", "desc", "text", *_UNSEEN):
            self._open = tag
            if tag == "text":
                self._labels.append("")
        elif tag == "g":  # as matplotlib draws letters: their text is in a comment
            self._is_label = (found.get("id") or "").startswith("text_")

    def handle_endtag(self, tag: str) -> None:
        self._events += 1
        if tag == self._open:
            self._open = ""

    def handle_data(self, data: str) -> None:
        self._events += 1
        if self._open in ("title", "desc"):
            self._title.append(data)
        elif self._open == "text" and len(self._labels[-1]) <= MAX_WORDS:
            self._labels[-1] += data

    def handle_comment(self, data: str) -> None:
        if self._is_label:
            self._labels.append(data)
            self._is_label = False

    def text(self) -> str:
        """All that was read."""
        first = f"[SVG picture{self._size}]"
        if title := words(" ".join(self._title)):
            first += f" {title}"
        labels = [label for each in self._labels if (label := words(each))]
        more = [f"[… {len(labels) - MAX_LABELS:,} more labels …]"] * (len(labels) > MAX_LABELS)
        return "\n".join((first, *labels[:MAX_LABELS], *more))


def _without_code(markup: str) -> Iterator[str]:
    """The markup without what scripts and styles hold, whose bounds are not HTML's to tell."""
    at = 0
    while (start := _CODE.search(markup, at)) is not None:
        yield markup[at : start.start()]
        end = _CODE_ENDS[start[1].lower()].search(markup, start.end())
        if end is None:
            return
        at = end.start()
    yield markup[at:]


def _named(what: str, attrs: dict[str, str | None]) -> str:
    about = (attrs.get(name) or "" for name in ("alt", "title"))
    told = words(next(filter(None, about), "")) or _address(attrs.get("src"))
    return f"{what}: {told}" if told else what


def _address(value: str | None) -> str:
    is_shown = value is not None and len(value) <= MAX_ADDRESS and not value.startswith("#")
    return words(value) if value and is_shown and not value.lower().startswith("data:") else ""


def _size(attrs: dict[str, str | None]) -> str:
    sides = [words(attrs.get(name) or "", 20) for name in ("width", "height")]
    if not all(sides):
        sides = words(attrs.get("viewbox") or "", 60).replace(",", " ").split()[2:4]
    return f", {' × '.join(sides)}" if sides else ""
