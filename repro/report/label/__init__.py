"""A run's privacy label: all that its ε says and rests on, on one page and as JSON.

- ``rebuild``: what a ledger's row, or the rounds, say was spent, as events again; refuses a row
  that they contradict;
- ``setting``: data, model, mechanism, keys and protocol of the run;
- ``content``: the label, from the record, its ledger and the audit on record;
- ``page``: the label as Markdown and as HTML.
"""

from repro.report.label.content import label_of
from repro.report.label.page import as_html, as_markdown

__all__ = ["as_html", "as_markdown", "label_of"]
