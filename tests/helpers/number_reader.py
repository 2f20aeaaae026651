"""Reads the numbers of a text: each is compared and cut out, so that what is left shows those that nothing explains."""

import re

from shown_numbers import agrees

COUNT = r"([\d,]+) neurons?"
VALUE = r"(-?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|inf|nan))"


class Reader:
    """A text, of which `cut` takes sentences whose numbers were read. `wrong`: the kinds of numbers that do not agree."""

    def __init__(self, text, wrong):
        self.text, self.wrong = text, wrong

    def check(self, kind, right):
        """Notes a wrong number of this kind."""
        if not right:
            self.wrong.append(kind)

    def compare(self, kind, texts, values):
        """The texts of the numbers that are said show the values; a value of None is one that is not said."""
        texts, values = [text for text in texts if text], [value for value in values if value is not None]
        self.check(kind, len(texts) == len(values) and all(map(agrees, texts, values)))

    def cut(self, kind, pattern, values, *, needed=True):
        """Compares the groups of the first match with the values, and cuts the match out; it is there only if `needed`."""
        match = re.search(pattern, self.text)
        self.check(kind, (match is not None) == needed)
        if match is not None:
            self.compare(kind, match.groups(), values)
            self.text = self.text[: match.start()] + self.text[match.end() :]

    def each(self, pattern):
        """Yields the matches, and cuts them out."""
        while match := re.search(pattern, self.text):
            self.text = self.text[: match.start()] + self.text[match.end() :]
            yield match
