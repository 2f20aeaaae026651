"""What an HTML page shows, read with the standard library."""

from html.parser import HTMLParser


class Cells(HTMLParser):
    """The texts of the cells of a page's tables by rows, its tags, and all its text."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.tags, self.text, self.in_cell = [], [], "", False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        self.text += data
        if self.in_cell:
            self.rows[-1][-1] += data
