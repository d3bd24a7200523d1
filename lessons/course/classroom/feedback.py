"""What a student reads: the verdict on an exercise as a line, and as a page."""

import re
import textwrap

STATES = {"pass": "done", "not_started": "not started"}


def state(verdict):
    """done, not started or not yet."""
    return STATES.get(verdict.status, "not yet")


def exit_status(verdict):
    """0 done, 1 not yet, 2 not started."""
    return {"done": 0, "not started": 2}.get(state(verdict), 1)


def headline(verdict):
    """What is wrong with a file that could not be checked; else what is wrong first."""
    kinds = {"syntax_error": "syntax error: ", "import_error": "error on import: ", "missing": "there is no file "}
    return kinds.get(verdict.status, "") + verdict.message


def line(exercise, verdict):
    """The verdict in one line."""
    score = f"{verdict.passed:>2} of {exercise.total:>2}"
    text = f"{exercise.number}  {state(verdict):11}  {score}  {exercise.title}"
    message = headline(verdict)
    text += f": {message}" if message else ""
    return text if len(text) <= 160 else text[:159] + "…"


def page(exercise, verdict, file, verbose=False):
    """The verdict with what was checked, the first wrong thing in full, and what to do next."""
    score = f"{verdict.passed} of {exercise.total} checks pass"
    out = [f"{exercise.number} {exercise.title}: {state(verdict)}, {score}  ({file})", ""]
    if not verdict.tasks:
        out += _wrapped(headline(verdict))
        out += _printed(verdict.printed)
        if verdict.status == "timeout":
            out += _wrapped("Look for a loop whose condition never becomes false.")
        out += ["", *verdict.trace.splitlines()] if verbose and verdict.trace else []
    width = max((len(t.name) for t in verdict.tasks), default=0)
    first, checks = verdict.first, {task.name: [check.name for check in task.checks] for task in exercise.tasks}
    for task in verdict.tasks:
        if task.state == "done":
            text = "right: " + "; ".join(task.passed)
        elif task is first and task.state == "wrong":
            text = f"wrong at: {task.check}"
        else:
            text = f"wrong at: {task.check}" if task.state == "wrong" else \
                "not started; will be checked: " + "; ".join(checks[task.name])
        out += textwrap.wrap(f"  {task.name:<{width}}  {text}", 110, subsequent_indent=" " * (width + 4))
        if task is first and task.state == "wrong":
            out += _first(task, verbose)
    todo = next((t for t in verdict.tasks if t.state != "done"), None)
    if todo or not verdict.tasks:
        reset = f"python -m lessons reset {exercise.number}"
        if verdict.status == "missing":
            out += ["", f"The exercise to start from: {reset}"]
        else:
            out += ["", f"Edit {file} and check again. A hint: python -m lessons hint {exercise.number}"]
        if first and first.fact.startswith("there is no function"):
            out.append(f"The exercise as it was, with a copy of your file kept: {reset}")
        if not verbose and (verdict.trace or (first and first.trace)):
            out.append(f"The whole traceback: python -m lessons check {exercise.number} -v")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out))


def _first(task, verbose):
    out = ["", *_wrapped(task.fact, "    "), *_wrapped(f"inputs: {task.inputs}", "    ")]
    out += [f"    {text}" for text in _printed(task.printed)]
    if task.known:
        out += ["", *_wrapped(f"One mistake that gives this: “{task.known.title}”. {task.known.sentence}", "    "),
                *_wrapped(f"See for yourself: {task.known.experiment}", "    ")]
    if verbose and task.trace:
        out += ["", *(f"    {text}" for text in task.trace.splitlines())]
    return [*out, ""]


def _printed(text):
    lines = text.strip().splitlines()
    if not lines:
        return []
    return ["Your code printed:", *(f"  | {text[:150]}" for text in lines[:8]), *(["  | …"] if len(lines) > 8 else [])]


def _wrapped(text, indent=""):
    return textwrap.wrap(text, 110, initial_indent=indent, subsequent_indent=indent)
