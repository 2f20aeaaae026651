"""`relu-probe show`: prints a file of reports, and writes it as a web page."""

import argparse

from relu_probe.cli.files import check_distinct, check_outputs, read_reports
from relu_probe.cli.streams import complain, say
from relu_probe.cli.web_page import headline, web_page
from relu_probe.report.history import history
from relu_probe.utils.foreign_text import shown
from relu_probe.utils.replaced_file import replaced_file

FAILED = 2

EXAMPLES = """\
exit code: 0 whatever the reports say, 2 if the file cannot be read or the page
cannot be written

FILE holds one report, or a list of the reports of one training, oldest first.
To write such a list in Python:
  json.dump([report.to_dict() for report in probe.reports], file)

examples:
  relu-probe check model.keras --data validation.npz --json report.json
  relu-probe show report.json
  relu-probe show reports.json --html reports.html
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the command."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "file", metavar="FILE", help="a report that relu-probe check --json wrote, or a list of reports"
    )
    parser.add_argument("--html", metavar="FILE", help="also write a page with pictures and tables to FILE")


def run(args: argparse.Namespace) -> int:
    """Runs the command: prints the newest report and, if there are several, their history. Returns the exit code."""
    try:
        reports = read_reports(args.file)
        found = history(reports)
        if args.html is not None:
            check_outputs([args.html])
            check_distinct(args.html, [args.file])
            with replaced_file(args.html) as page:
                page.write(web_page(reports))
    except (ValueError, OSError) as error:
        complain(f"relu-probe show: {shown(error, 600)}")
        return FAILED
    newest = reports[-1]
    say(headline(reports), "green" if newest.dead_fraction == 0 else "red")
    say("\n".join(["", *([str(found), ""] if len(reports) > 1 else []), str(newest)]))
    return 0
