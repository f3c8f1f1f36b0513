"""A page as a browser would take it apart."""

import html.parser

VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(html.parser.HTMLParser):
    """Collects what a page loads and links, and insists on matching tags."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.links, self.ids = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        assert tag not in ("script", "iframe", "object", "embed", "link")
        if tag not in VOID:
            self.open.append(tag)
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if "src" in attributes:
            self.sources.append(attributes["src"])
        if "href" in attributes:
            self.links.append(attributes["href"])
        if tag == "img":
            assert attributes["alt"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
