"""python -m lessons: run the course, or a part of it; make pages and notebooks; rebuild the bases."""

import argparse
import sys
import time
import traceback

from .course import bases, scripts


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m lessons", formatter_class=argparse.RawDescriptionHelpFormatter, description="""\
  python -m lessons               run every lesson and draw its figures
  python -m lessons 08 10         run these
  python -m lessons list          what there is
  python -m lessons render [08]   run, and write the page (lessons/08_….md)
  python -m lessons notebook 08   write lessons/08_….ipynb
  python -m lessons retrain       rebuild the pretrained bases that lessons start from""")
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--retrain", action="store_true", help="rebuild the bases first")
    options = parser.parse_args(arguments)
    command, numbers = "run", options.words
    if numbers and not numbers[0].isdigit():
        command, *numbers = numbers
    if command not in ("run", "list", "render", "notebook", "retrain"):
        parser.error(f"unknown command {command!r}; there are run, list, render, notebook and retrain")
    known = scripts.lessons()
    numbers = [n.zfill(2) for n in numbers]
    for n in numbers:
        if n not in known:
            parser.error(f"there is no lesson {n}; there are {', '.join(known)}")
    if options.retrain or command == "retrain":
        bases.retrain()
        if command == "retrain":
            return 0
    chosen = [known[n] for n in numbers] or list(known.values())
    if command == "list":
        for path in chosen:
            print(scripts.title(path))
        return 0
    if command == "notebook":
        for path in chosen:
            path.with_suffix(".ipynb").write_text(scripts.notebook(path), encoding="utf-8")
            print(f"lessons/{path.stem}.ipynb")
        return 0
    return run(chosen, render=command == "render")


def run(paths, render):
    """Run lessons one after the other. Returns 1 if one of them failed, else 0."""
    failed, begin = [], time.perf_counter()
    for path in paths:
        print(f"\n== {scripts.title(path)}", flush=True)
        start = time.perf_counter()
        try:
            if render:
                path.with_suffix(".md").write_text(scripts.render(path), encoding="utf-8")
                print(f"page: lessons/{path.stem}.md")
            else:
                scripts.execute(path)
        except Exception as error:  # a lesson that fails is reported; the others still run
            *_, frame = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)] or [None]
            where = f"lessons/{path.name}, line {frame.lineno}: {frame.line}" if frame else f"lessons/{path.name}"
            print(f"FAILED at {where}\n  {type(error).__name__}: {error}", file=sys.stderr)
            failed.append(path.name[:2])
        print(f"-- {path.name[:2]} took {time.perf_counter() - start:.0f} s", flush=True)
    print(f"\n{len(paths) - len(failed)} of {len(paths)} lessons ran through, in {time.perf_counter() - begin:.0f} s"
          + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(130)
