"""What a student reads: the verdict on an exercise as a line, and as a page."""

import re
import textwrap

STATES = {"pass": "done", "not_started": "not started"}
WIDTH = 110  # characters in a line
LOOP = "Look for a loop whose condition never becomes false; if it is only slow, --timeout gives it more time."


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
    """The verdict with what was checked, each function that is wrong by itself in full, and what to do next."""
    score = f"{verdict.passed} of {exercise.total} checks pass"
    out = [f"{exercise.number} {exercise.title}: {state(verdict)}, {score}  ({file})", ""]
    if not verdict.tasks:
        out += _wrapped(headline(verdict))
        out += _printed(verdict.printed)
        if verdict.status == "timeout":
            out += _wrapped(LOOP)
        out += ["", *verdict.trace.splitlines()] if verbose and verdict.trace else []
    width = max((len(t.name) for t in verdict.tasks), default=0)
    checks = {task.name: [check.name for check in task.checks] for task in exercise.tasks}
    for task in verdict.tasks:
        text = {"done": "right: " + "; ".join(task.passed), "wrong": f"wrong at: {task.check}",
                "not started": "not started; will be checked: " + "; ".join(checks[task.name])}[task.state]
        out += textwrap.wrap(f"  {task.name:<{width}}  {text}", WIDTH, subsequent_indent=" " * (width + 4))
        if task.state == "wrong":
            out += _explained(task, {t.name: t.state for t in verdict.tasks}, verbose)
    if verdict.status != "pass":
        out += ["", *_next_steps(exercise, verdict, file, verbose)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out))


def _explained(task, states, verbose):
    """What is wrong with a function; where it rests on others that are not done themselves, they come first."""
    if task.rests_on:
        others = " and ".join(task.rests_on)
        begun = any(states[name] == "wrong" for name in task.rests_on)
        text = f"It calls {others}: mend that first." if begun else f"It calls {others}, which is not written yet."
        return ["", *_wrapped(text, "    "), ""]
    out = ["", *_wrapped(task.fact, "    ")]
    out += _wrapped(LOOP, "    ") if task.stop == "timeout" else []
    out += _wrapped(f"inputs: {task.inputs}", "    ") if task.inputs else []
    out += _wrapped(f"The example in its docstring, {task.example}", "    ") if task.example else []
    out += [f"    {text}" for text in _printed(task.printed)]
    if task.known:
        out += ["", *_wrapped(f"One mistake that gives this: “{task.known.title}”. {task.known.sentence}", "    "),
                *_wrapped(f"See for yourself: {task.known.experiment}", "    ")]
    if verbose and task.trace:
        out += ["", *(f"    {text}" for text in task.trace.splitlines())]
    return [*out, ""]


def _next_steps(exercise, verdict, file, verbose):
    reset = f"python -m lessons reset {exercise.number}"
    if verdict.status == "missing":
        return [f"The exercise to start from: {reset}"]
    out = [f"Edit {file} and check again. A hint: python -m lessons hint {exercise.number}"]
    if any(t.fact.startswith("there is no function") for t in verdict.tasks):
        out.append(f"The exercise as it was, with a copy of your file kept: {reset}")
    if not verbose and (verdict.trace or any(t.trace and not t.rests_on for t in verdict.tasks)):
        out.append(f"The whole traceback: python -m lessons check {exercise.number} -v")
    return out


def _printed(text):
    lines = text.strip().splitlines()
    if not lines:
        return []
    return ["Your code printed:", *(f"  | {text[:150]}" for text in lines[:8]), *(["  | …"] if len(lines) > 8 else [])]


def _wrapped(text, indent=""):
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)
