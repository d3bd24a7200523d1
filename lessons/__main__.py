"""python -m lessons: run the course, make pages of it, check exercises, and grade those of a class.

Where a folder has a package named lessons of its own, `python path/to/lessons` is the same from there.
"""

import argparse
import runpy
import signal
import sys
import time
import traceback
import webbrowser
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if not __package__:  # python path/to/lessons
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    runpy.run_module("lessons", run_name="__main__", alter_sys=True)

from lora_np.checkpoint.atomic import NotInstalled
from lora_np.support import memory, terminal

from . import stopped
from .course import shown
from .course.checking import judge, runner, tasks
from .course.classroom import exports, feedback, grading, hints, progress, table, watching
from .course.pages import book, scripts
from .course.pages import notebook as notebooks


class UsageError(Exception):
    """What was asked for is not there."""


def run(options, render=False):
    """Run lessons one after the other, but one whose model is absent. Returns 1 if one of them failed, else 0."""
    from .course.pages import figures  # Matplotlib: only where something is drawn
    memory.keep_freed_memory()
    if options.retrain:
        retrain(options)
    if render or options.update:
        figures.FOLDER = figures.TRACKED
    paths, failed, skipped, begin = _lessons(options.numbers), [], [], time.perf_counter()
    for path in paths:
        print(f"\n== {scripts.title(path)}", flush=True)
        start = time.perf_counter()
        try:
            if render:
                path.with_name("README.md").write_text(scripts.render(path), encoding="utf-8", newline="\n")
                scripts.relink()
                print(f"page: {shown(path.with_name('README.md'))}")
            elif scripts.changed(path):
                print("It is not what its page shows, so the assertions that only guard the page are left out.")
                scripts.execute(path, guards=False)
            else:
                scripts.execute(path)
        except BrokenPipeError:  # nobody reads on
            raise
        except NotInstalled as error:  # a lesson on a model that not everybody has
            print(f"skipped: {error}")
            skipped.append(path.parent.name[:2])
        except Exception as error:  # a lesson that fails is reported; the others still run
            *_, frame = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)] or [None]
            where = shown(path) + (f", line {frame.lineno}: {frame.line}" if frame else "")
            print(f"FAILED at {where}\n  {type(error).__name__}: {error}", file=sys.stderr)
            failed.append(path.parent.name[:2])
        print(f"-- {path.parent.name[:2]} took {time.perf_counter() - start:.0f} s", flush=True)
    print(f"\n{len(paths) - len(failed) - len(skipped)} of {len(paths)} lessons ran through, in "
          f"{time.perf_counter() - begin:.0f} s" + "".join(
              f"; {what}: {', '.join(which)}" for what, which in (("failed", failed), ("skipped", skipped)) if which))
    print(f"figures: {shown(figures.FOLDER)}" + ("" if figures.FOLDER == figures.TRACKED else
          f"; the pages show those in {shown(figures.TRACKED)}, which --update draws again"))
    if render or not options.numbers:
        write_book()
    return 1 if failed else 0


def render(options):
    return run(options, render=True)


def list_(options):
    for path in _lessons(options.numbers):
        print(scripts.title(path))


def write_book(options=None):
    try:
        path = book.write()
    except ValueError as error:
        raise UsageError(f"the book cannot be set: {error}") from None
    print(f"book: {shown(path)}" + ("" if options else ", for any browser; python -m lessons book --open opens it"))
    if options and options.open:
        webbrowser.open(path.as_uri())


def notebook(options):
    for path in _lessons(options.numbers):
        target = path.with_suffix(".ipynb")
        kept = notebooks.write(path, target, lambda old: progress.backup(old, old.parent.name))
        print(shown(target) + (f"; yours is kept in {shown(kept)}" if kept else ""))


def retrain(options):
    from .course.pages import bases  # trains, and so has no place in a quick command
    bases.retrain()


def check(options):
    """0: done. 1: not yet. 2: not started."""
    exercises = _exercises(options.numbers)
    if len(exercises) == 1:
        (exercise,) = exercises
        file = options.file or exercise.file
        verdict = _verdict(exercise, options.timeout, file)
        print(feedback.page(exercise, verdict, shown(file), options.verbose))
        return feedback.exit_status(verdict)
    if options.file:
        raise UsageError("--file goes with one exercise: python -m lessons check 09 --file ex09_lora_layer.py")
    found, pool = [], ThreadPoolExecutor(2)
    try:
        verdicts = pool.map(lambda exercise: _verdict(exercise, options.timeout), exercises)
        for exercise, verdict in zip(exercises, verdicts, strict=True):
            print(feedback.line(exercise, verdict), flush=True)
            found.append(feedback.exit_status(verdict))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    print(f"\n{found.count(0)} of {len(found)} exercises done")
    return 0 if not any(found) else 2 if set(found) == {2} else 1


def hint(options):
    """One more hint on a function of an exercise: the one that is named, or the first that does not work yet."""
    (exercise,) = _exercises(options.numbers)
    verdict = _verdict(exercise, options.timeout) if not options.name else None
    code = exercise.file.read_text(encoding="utf-8", errors="replace") if exercise.file.is_file() else ""
    try:
        print(hints.page(exercise, verdict, options.name, code))
    except ValueError as error:
        raise UsageError(error) from None


def reset(options):
    for exercise in _exercises(options.numbers):
        missing = not exercise.file.exists()
        backup = progress.reset(exercise)
        print(f"{shown(exercise.file)} is the stub again; " + (
            f"yours is kept in {shown(backup)}" if backup else
            "there was no such file" if missing else "it was the stub before, too"))


def next_(options):
    """The first exercise that is not done, and its lesson."""
    for exercise in _exercises([]):
        verdict = _verdict(exercise, options.timeout)
        if verdict.status != "pass":
            lesson = scripts.lessons().get(exercise.number)
            print(feedback.line(exercise, verdict))
            print(f"Read {shown(lesson.with_name('README.md'))}, then edit {shown(exercise.file)}" if lesson else
                  f"Edit {shown(exercise.file)}")
            print(f"Check your work: python -m lessons check {exercise.number}")
            return
    print("All exercises are done.")


def watch(options):
    """Check again whenever a file is saved."""
    watching.watch(_exercises(options.numbers), lambda exercise: _verdict(exercise, options.timeout),
                   lambda exercise: shown(exercise.file))


def grade(options):
    numbers = [exercise.number for exercise in _exercises(options.numbers)] if options.numbers else []
    try:
        written = table.Table(options.out)
        collection = grading.collect(options.folder, numbers, [written.path, *exports.paths(written.path)])
    except (OSError, ValueError) as error:
        raise UsageError(error) from None
    return grading.grade(collection, written, options.timeout, options.jobs, options.fresh, options.points)


def stubs(options):
    print("\n".join(tasks.write_stubs()))


COMMANDS = {  # name: (function, what it takes, what it does)
    "run": (run, "lessons", "run every lesson, or these, and draw their figures; the word itself may be left out"),
    "list": (list_, "lessons", "name the lessons"),
    "render": (render, "lessons", "run, and write the pages (lessons/08_…/README.md)"),
    "notebook": (notebook, "lessons", "write lessons/08_…/lesson.ipynb"),
    "book": (write_book, "", "write lessons/book.html, the whole course in one file for any browser"),
    "retrain": (retrain, "", "rebuild the pretrained bases that lessons start from"),
    "check": (check, "exercises", "check all exercises, a line each, or one in full"),
    "watch": (watch, "exercises", "check again whenever a file is saved, and go on when it is done"),
    "hint": (hint, "exercise", "the next hint on what does not work yet, or on a function"),
    "reset": (reset, "exercise", "put the stub back, after keeping a copy of your file"),
    "next": (next_, "", "the first exercise that is not done"),
    "grade": (grade, "folder", "grade a class: a folder or a .zip with what each student handed in"),
    "stubs": (stubs, "", "for authors: make the exercise files from the solutions"),
}


def _lessons(numbers):
    return _pick("lesson", numbers, scripts.lessons())


def _exercises(numbers):
    return [tasks.load(name[2:4]) for name in _pick("exercise", numbers, tasks.names())]


def _pick(kind, numbers, known):
    """The values of these numbers, or all. Raises UsageError for a number that there is not."""
    numbers = [n.zfill(2) for n in numbers]
    for n in numbers:
        if n not in known:
            raise UsageError(f"there is no {kind} {n}; there are {', '.join(known)}")
    return [known[n] for n in numbers] or list(known.values())


def _verdict(exercise, timeout, file=None):
    """The verdict on a student's file."""
    return judge.verdict(exercise, file or exercise.file, timeout, shown(file or exercise.file))


def _parser():
    parser = argparse.ArgumentParser(prog="python -m lessons", description="The course and its exercises.")
    commands = parser.add_subparsers(title="commands", metavar="command", required=True)
    for name, (function, takes, text) in COMMANDS.items():
        p = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        p.set_defaults(function=function)
        if takes in ("lessons", "exercises"):
            p.add_argument("numbers", nargs="*", metavar="NN", help=f"numbers of {takes}; all if none is given")
        if takes == "exercise":
            p.add_argument("numbers", nargs=1, metavar="NN", help="the number of an exercise")
            p.add_argument("name", nargs="?", metavar="FUNCTION", help="one of its functions")
        if name in ("run", "render"):
            p.add_argument("--retrain", action="store_true", help="rebuild the bases first")
        if name == "run":
            p.add_argument("--update", action="store_true", help="draw the figures that the pages show, in figures/, "
                           "instead of in figures/drawn/")
        if name == "book":
            p.add_argument("--open", action="store_true", help="and open it")
        if name in ("check", "hint", "next", "watch", "grade"):
            p.add_argument("--timeout", type=_positive(float), default=20 if name == "grade" else 10, metavar="SECONDS",
                           help="the time that one call of a function may take (default %(default)s)")
        if name == "check":
            p.add_argument("-v", "--verbose", action="store_true", help="the whole traceback, too")
            p.add_argument("--file", type=Path, help="check this file instead of lessons/09_…/ex09_….py")
        if name == "grade":
            p.add_argument("folder", type=Path, help="what each student handed in, or a .zip of it")
            p.add_argument("numbers", nargs="*", default=[], metavar="NN",
                           help="numbers of exercises; if none is given, those that somebody handed in")
            p.add_argument("--out", type=Path, default=Path("grades.csv"), help="the table (default %(default)s)")
            p.add_argument("--jobs", type=_positive(int), default=2, metavar="N", help="how many at a time (default 2)")
            p.add_argument("--fresh", action="store_true", help="grade again what the table holds already")
            p.add_argument("--points", type=_positive(float), default=1, metavar="N",
                           help="what a whole exercise is worth in the wide table (default %(default)s)")
    return parser


def _positive(kind):
    def convert(text):
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value < 1e6:
            raise argparse.ArgumentTypeError(f"expected a number above 0 and below a million, got {text!r}")
        return value
    return convert


def main(arguments=None):
    """The command; returns its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    if not words or words[0].isdigit() or words[0] in ("--retrain", "--update"):
        words.insert(0, "run")
    if words[0] not in COMMANDS and not words[0].startswith("-"):
        parser.error(f"unknown command {words[0]!r}; there are {', '.join(COMMANDS)}")
    options = parser.parse_args(words)
    try:
        return options.function(options) or 0
    except UsageError as error:
        parser.error(str(error))


if __name__ == "__main__":
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the last is not on Windows
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), stopped)
    try:
        terminal.run("python -m lessons", main)
    finally:
        runner.stop()
