"""The lab's commands. `make help` lists what you type; each of those calls one of these."""

import argparse
import sys

from lab import pages, plan, proof, run, sabotage, stages
from lab.chapters import LabError
from lab.outages import OUTAGES

# A command that draws imports what it draws with: the others begin at once.


def make_tour(options: argparse.Namespace) -> None:
    from lab import tour

    tour.tour(options.keep)


def measure(options: argparse.Namespace) -> None:
    from lab import figures

    figures.measure(options.names)


def load(options: argparse.Namespace) -> int | None:
    from lab import loadtest

    if not options.shape:
        loadtest.open_page(options.chapter)
        return None
    who = options.who.split()
    return loadtest.run_shape(options.chapter, options.shape, options.users, options.seconds, who)


def run_notebooks(options: argparse.Namespace) -> int:
    from lab import notebooks  # the other commands need nothing of Jupyter

    return notebooks.run(options.names)


def trouble(options: argparse.Namespace) -> None:
    from lab import troubles  # the other commands need nothing of Flask

    troubles.show(options.name)


def test(options: argparse.Namespace) -> int | None:
    if not options.times:
        return proof.run(options.all)
    print(proof.times())
    return None


def show_plan(options: argparse.Namespace) -> int:
    return plan.show()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser("tour", help="the same measurement in every chapter")
    command.add_argument(
        "--keep", action="store_true", help="write to results/, not results/local/"
    )
    command.set_defaults(run=make_tour)

    command = commands.add_parser("figures", help="measure the figures behind the lessons")
    command.add_argument("names", nargs="*", help="which, such as 01_slots; none: all")
    command.set_defaults(run=measure)

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

    command = commands.add_parser("trouble", help="make a trouble of TROUBLESHOOTING.md happen")
    command.add_argument("name", nargs="?", default="", help="which; none: list them")
    command.set_defaults(run=trouble)

    command = commands.add_parser("load", help="Locust's page on a chapter, or one shape of load")
    command.add_argument("chapter", help="its number, such as 02")
    command.add_argument("--shape", default="", help="without its page: Steps, Spike, Ramp or Soak")
    command.add_argument("--users", type=int, default=40, help="the most users of the shape")
    command.add_argument("--seconds", type=int, default=60)
    command.add_argument("--who", default="OpenVisitor OpenPublisher", help="Locust's classes")
    command.set_defaults(run=load)

    command = commands.add_parser("mailbox", help="who got mail from the running chapter")
    command.set_defaults(run=lambda options: run.mailbox())

    command = commands.add_parser("stages", help="check what differs between chapters")
    command.add_argument("--write", action="store_true", help="write every DIFF.md anew")
    command.set_defaults(run=lambda options: stages.main(options.write))

    command = commands.add_parser("test", help="run the tests, and say what came of them")
    command.add_argument("--all", action="store_true", help="the long ones, too")
    command.add_argument("--times", action="store_true", help="where the last run's time went")
    command.set_defaults(run=test)

    command = commands.add_parser("pages", help="check the tables and the numbers of every page")
    command.add_argument("--write", action="store_true", help="write every table anew")
    command.set_defaults(run=lambda options: pages.main(options.write))

    command = commands.add_parser("sabotage", help="harm a copy: do the tests notice?")
    command.add_argument("names", nargs="*", help="which harms, such as 07; none: all")
    command.set_defaults(run=lambda options: sabotage.sabotage(options.names))

    command = commands.add_parser("notebooks", help="run the notebooks and keep their outputs")
    command.add_argument("names", nargs="*", help="which, such as 01; none: all")
    command.set_defaults(run=run_notebooks)

    command = commands.add_parser("plan", help="the minutes of a class, from the notebooks")
    command.set_defaults(run=show_plan)

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
