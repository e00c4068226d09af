"""The lab's commands. `make help` lists what you type; each of those calls one of these."""

import argparse
import sys

from lab import figures, run, stages, tour
from lab.chapters import LabError
from lab.outages import OUTAGES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser("tour", help="the same measurement in every chapter")
    command.add_argument(
        "--keep", action="store_true", help="write to results/, not results/local/"
    )
    command.set_defaults(run=lambda options: tour.tour(options.keep))

    command = commands.add_parser("figures", help="measure the figures behind the lessons")
    command.add_argument("names", nargs="*", help=f"which, of: {', '.join(figures.FIGURES)}")
    command.set_defaults(run=lambda options: figures.measure(options.names))

    command = commands.add_parser("run", help="run one chapter until Ctrl-C")
    command.add_argument("chapter", help="its number, such as 01")
    command.set_defaults(run=lambda options: run.run(options.chapter))

    command = commands.add_parser("kill", help="send a signal to a process of the running chapter")
    command.add_argument("process", help="its name in the Procfile")
    command.add_argument("--signal", default="SIGKILL")
    command.set_defaults(run=lambda options: run.kill(options.process, options.signal))

    command = commands.add_parser("fault", help="break the running chapter 04, or mend it")
    command.add_argument("name", nargs="?", default="", help=f"{', '.join(OUTAGES)}, or mend")
    command.set_defaults(run=lambda options: run.fault(options.name))

    command = commands.add_parser("mailbox", help="who got mail from the running chapter")
    command.set_defaults(run=lambda options: run.mailbox())

    command = commands.add_parser("stages", help="check what differs between chapters")
    command.add_argument("--write", action="store_true", help="write every DIFF.md anew")
    command.set_defaults(run=lambda options: stages.main(options.write))

    options = parser.parse_args()
    try:
        return options.run(options) or 0
    except LabError as error:
        print(f"\n{error}\n", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
