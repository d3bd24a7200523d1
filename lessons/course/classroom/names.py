"""What a name says, of a file or of a folder: whose it is, which exercise it is, which attempt, and when it was made.

Platforms and people decorate names in their own ways. A decoration is taken off where its form is beyond doubt; what is
left is read for the exercise's number and for signs of a version.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from ..checking import tasks

# How platforms name what one downloads from them: whose it is, then the name that the student gave.
PLATFORMS = [re.compile(pattern, re.I) for pattern in (
    r"(?P<student>.+?)_(?P<id>\d+)_assignsubmission_(?:file|onlinetext)(?:_(?P<rest>.*))?",  # Moodle
    r"(?P<student>.+)_attempt_(?P<time>\d{4}(?:-\d\d){5})(?:_(?P<rest>.+)|\.txt)?",         # Blackboard, its receipts
    r"(?P<student>[^_\d][^_]*)_(?:late_)?(?P<id>\d+)_(?:late_)?\d+_(?P<rest>.+)",            # Canvas
    r"(?P<id>\d+-\d+) - (?P<student>.+?) - "                                                # Brightspace
    r"(?P<time>[a-z]{3,9} \d{1,2}, \d{4} \d{3,4} ?[ap]m)(?: - (?P<rest>.+))?",
)]
ENDINGS = re.compile(r"(?P<stem>.*?)(?P<kinds>(?:\.(?:pyw?|txt|ipynb|download|zip))+)(?P<after> ?\(\d+\))?",
                     re.I | re.S)
EXERCISE = (r"(?<![a-z\d])(?:ex|exercise|exo|exercice|ejercicio|aufgabe|[uü]e?bung|task|lesson|question|problem)"
            r"[\W_]*0*{}(?!\d)")
ATTEMPT = re.compile(
    r"(?:(?<![a-z])(?:attempt|versuch|try|take|version|ver|rev|revision|(?:re)?submission|abgabe|v)[\W_]*|\()"
    r"(\d{1,3})(?![\d-])", re.I)
TRAILING = re.compile(r"[-_. ](\d{1,2})$")
OLDER = re.compile(r"(?<![a-z])(?:old|alt|bak|backup|orig|original|draft)(?![a-z])", re.I)
VERSION = re.compile(r"(?:attempt|versuch|version|ver|rev|revision|(?:re)?submissions?|abgabe|try|take|v|old|new|final|"
                     r"backup|bak|draft|copy|kopie|src|code|python|work|solutions?|files?|late)[\W_]*\d*", re.I)
ASSIGNMENT = re.compile(r"(?:hw|homework|assignments?|lab|week|unit|project|set|ps|problems?|ex|exercises?|class|group|"
                        r"section|submissions?|hand-?ins?|abgaben?|downloads?|moodle|canvas)(?:[\W_\d].*)?",
                        re.I | re.S)
OTHER_WORDS = re.compile(r"(?<![a-z])(?:late|copy|kopie|of|final|new|the|my|solution|submission)(?![a-z])", re.I)
STAMP = re.compile(r"(\d{4})[-_.]?(\d\d)[-_.]?(\d\d)(?:[T_\s-]+(\d\d)[-:h._]?(\d\d)(?:[-:._]?(\d\d))?)?(?!\d)")


@dataclass(frozen=True)
class Owner:
    """What a platform wrote into a name: the student, their number there, the time, and the name that was given.

    shared: before the student stands something that all names of an assignment begin with.
    """

    student: str
    id: str = ""
    time: str = ""
    rest: str = ""
    shared: bool = False


def owner(name):
    """The Owner that a decorated name tells of, or None."""
    for platform in PLATFORMS:
        if found := platform.fullmatch(name):
            parts = {"id": "", "time": "", **found.groupdict()}
            return Owner(parts["student"].strip(), parts["id"], stamp(parts["time"]), parts["rest"] or "",
                         "_attempt_" in platform.pattern)
    return None


def undecorated(name):
    """The name that the student gave."""
    found = owner(name)
    return found.rest if found and found.rest else name


def stem(name):
    """A name without its endings: "ex08.py.txt" and "EX08.PY (1)" give "ex08" and "EX08 (1)"."""
    found = ENDINGS.fullmatch(name)
    return found["stem"] + (found["after"] or "") if found else name


def kind(name):
    """"py" for a file that may be Python's, "ipynb" for a notebook, else ""."""
    found = ENDINGS.fullmatch(name)
    kinds = found["kinds"].casefold() if found else ".zip"
    return "" if ".zip" in kinds else "ipynb" if ".ipynb" in kinds else "py"


class Reader:
    """Finds exercises in names, by number or by title: "ex8", "Exercise 08", "08_parameter_counts"."""

    def __init__(self):
        self.patterns, folders = {}, tasks.folders()
        for number, name in tasks.names().items():
            words = [name[4:], *([folders[number].name[3:]] if number in folders else [])]
            words = "|".join(r"[\W_]*".join(map(re.escape, word.split("_"))) for word in words)
            self.patterns[number] = [re.compile(pattern, re.I) for pattern in (
                rf"(?<![a-z\d])(?:ex)?[\W_]*0*{int(number)}[\W_]*(?:{words})", EXERCISE.format(int(number)),
                rf"^0*{int(number)}(?=$|[\W_])")]
        self.exercises = cache(self._exercises)

    def _exercises(self, name):
        """{number: (from, to) in the undecorated stem} of the exercises that a name speaks of."""
        text = stem(undecorated(name))
        return {number: found.span() for number, patterns in self.patterns.items()
                if (found := next((m for one in patterns if (m := one.search(text))), None))}

    def version(self, name, number):
        """As version, of a name in which an exercise's own number is no version."""
        text, where = stem(undecorated(name)), self.exercises(name).get(number, (0, 0))
        return version(f"{text[:where[0]]} {text[where[1]:]}", owner(name))

    def student(self, name):
        """The student in the name of a file that also names an exercise: "ada_ex08_v2.py" is Ada's; else ""."""
        text, spans = stem(undecorated(name)), self.exercises(name).values()
        rests = [text[:min(s for s, _ in spans)], text[max(e for _, e in spans):]] if spans else []
        for form in (STAMP, ATTEMPT, OLDER, OTHER_WORDS):
            rests = [form.sub(" ", rest) for rest in rests]
        return next((rest for rest in (r.strip(" _-.,()[]") for r in rests) if re.search(r"[^\W\d_]", rest)), "")


def version(text, owner=None):
    """(attempt, time) as far as a text tells: -1 for an older one and 0 where it does not say; "" without a time."""
    when = stamp(text) or (owner.time if owner else "")
    text = STAMP.sub(" ", text)
    numbers = [int(n) for n in ATTEMPT.findall(text)] or [int(n) for n in TRAILING.findall(text)]
    return (max(numbers) if numbers else -1 if OLDER.search(text) else 0), when


def folder_version(parts):
    """(attempt, time) as far as the names of folders tell."""
    found = [version(stem(undecorated(part)), owner(part)) if ATTEMPT.search(part) or STAMP.search(part) or owner(part)
             else (-1 if OLDER.fullmatch(part) else 0, "") for part in parts]
    return (max((n for n, _ in found if n > 0), default=min((n for n, _ in found), default=0)),
            max((when for _, when in found), default=""))


def stamp(text):
    """A time in a name, as digits that sort: "20240115123045"; "" without one."""
    if found := STAMP.search(text):
        year, month, day = found.group(1, 2, 3)
        if 1990 <= int(year) < 2100 and 1 <= int(month) <= 12 and 1 <= int(day) <= 31:
            return "".join(part or "00" for part in found.groups())
    for form in ("%b %d, %Y %I%M %p", "%B %d, %Y %I%M %p"):
        try:
            return datetime.strptime(text.upper().replace("AM", " AM").replace("PM", " PM").replace("  ", " "),
                                     form).strftime("%Y%m%d%H%M%S")
        except ValueError:
            continue
    return ""
