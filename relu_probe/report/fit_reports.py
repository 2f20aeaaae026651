"""The reports of one fit, or of fits that were appended to it, of which only the newest may be kept."""

from collections.abc import Iterable
from dataclasses import replace

from relu_probe.report.deaths import Deaths
from relu_probe.report.history import History, history
from relu_probe.report.neuron_states import HistoryTracker
from relu_probe.report.report import Report
from relu_probe.utils.foreign_text import shown
from relu_probe.utils.wording import number


class FitReports:
    """A list of reports that remembers what the dropped ones told about deaths.

    Args:
        keep: the number of newest reports that are kept, None for all.
    """

    def __init__(self, keep: int | None = None) -> None:
        self.reports: list[Report] = []
        self.newest_fit_has_reports = False
        self._keep = keep
        self._all, self._dropped = HistoryTracker(), HistoryTracker()

    @classmethod
    def from_reports(cls, reports: Iterable[Report]) -> "FitReports":
        """Returns these reports of one fit, oldest first."""
        found = cls()
        for report in reports:
            found.add(report)
        return found

    def __str__(self) -> str:
        newest = "" if self.newest is None else f", newest {self.newest!r}"
        return f"{number(len(self.reports), 'report')}{newest}"

    @property
    def history(self) -> History:
        """The history of the kept reports, after that of the dropped ones."""
        return history(self.reports, after=self._dropped)

    @property
    def newest(self) -> Report | None:
        """The newest report, None before the first."""
        return self.reports[-1] if self.reports else None

    def deaths(self) -> dict[str, Deaths]:
        """For each layer that the newest report measured, the deaths that it shows."""
        layers = {} if self.newest is None else self.newest.layers
        return {name: Deaths.of(layer, self._all.layers[name]) for name, layer in layers.items() if layer.measured}

    def of(self, epoch: int) -> Report | None:
        """The newest report if it is of this epoch, else None."""
        return self.newest if self.newest is not None and self.newest.epoch == epoch else None

    def begin_fit(self) -> None:
        """Notes that the next report is the first of a fit."""
        self.newest_fit_has_reports = False

    def check_widths(self, report: Report) -> None:
        """Raises ValueError if a layer of the report has another number of neurons than in the reports before it."""
        for name, layer in report.layers.items():
            known = self._all.layers.get(name)
            if layer.measured and known is not None and len(known.state) != layer.neurons:
                raise ValueError(
                    f"layer {shown(repr(name))} has {number(layer.neurons, 'neuron')}, and had {len(known.state):,} in an "
                    "earlier fit; expected fits of one model with append=True. Give each model a probe of its own, with another "
                    "name=."
                )

    def add(self, report: Report) -> None:
        """Appends a report, and drops the oldest ones beyond `keep`."""
        self.newest_fit_has_reports = True
        self.reports.append(self._all.follow(report))
        while self._keep is not None and len(self.reports) > self._keep:
            self._dropped.follow(self.reports.pop(0))

    def mark_incomplete(self, why: str) -> None:
        """Sets why the newest report is incomplete, if the newest fit has a report."""
        if self.newest_fit_has_reports and self.reports[-1].incomplete != why:
            self.reports[-1] = replace(self.reports[-1], incomplete=why)
