"""Whose each file of a collection is.

A folder, or an archive, is a student's, and is one level deeper where the folders at the top hold those of students. Of
files without a folder the names tell the students apart, as platforms write them or as people do.
"""

import os
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from ..checking.transport import printable
from . import names


@dataclass(eq=False)
class Student:
    """name: as tables show it. id: the number that a platform gave. entries: [(parts below the student, Entry)]."""

    name: str
    id: str = ""
    entries: list = field(default_factory=list)


@dataclass(eq=False)
class Node:
    """A folder or an archive: what lies in it."""

    name: str
    nodes: dict = field(default_factory=dict)
    entries: list = field(default_factory=list)

    def below(self, parts=()):
        """[(parts, Entry)] of everything below."""
        found = [((*parts, entry.name), entry) for entry in self.entries]
        return found + [one for node in self.nodes.values() for one in node.below((*parts, node.name))]


@dataclass(eq=False)
class Portion:
    """What one folder, archive or file adds to a student. label: their name where no platform wrote one (owner).

    path: the folders above it. folder: it is one, and no archive or file.
    """

    entries: list
    label: str
    owner: names.Owner | None = None
    path: str = ""
    folder: bool = False


def divide(entries, reader, name):
    """([Student], [Entry that is nobody's]) of a collection's entries. name: of a student who can only be all of it."""
    root, loose = Node(name), []
    for entry in entries:
        node = root
        for part in entry.parts if entry.folder else entry.parts[:-1]:
            node = node.nodes.setdefault(part, Node(part))
        if not entry.folder:
            node.entries.append(entry)
    if _is_project(root) or (root.nodes and all(reader.exercises(n) for n in root.nodes)):
        return [Student(printable(name), "", root.below())], []
    portions = _portions(root, (), reader, loose)
    return _students(portions, reader), loose


def _is_project(node):
    """Whether a folder is a copy of the course."""
    return not node.nodes.keys().isdisjoint({"lessons", "lora_np"}) or sum(
        bool(re.match(r"\d\d_", inner)) for inner in node.nodes) > 2


def _portions(node, path, reader, loose):
    """The Portions below a folder that holds students; what is nobody's is added to loose."""
    speaking = [child for child in node.nodes.values() if _speaks(child, reader)]
    alone, found = len(speaking) == 1 and not node.entries, []
    holding = [child for child in speaking if _holds_students(child, reader, alone)]
    for child in node.nodes.values():
        archive, owner = child.name.casefold().endswith(".zip"), names.owner(child.name)
        if child in holding and (holding == speaking or names.ASSIGNMENT.fullmatch(names.stem(child.name))):
            found += _portions(child, (*path, child.name), reader, loose)
        else:
            label = re.sub(r" ?\(\d+\)$", "", os.path.splitext(child.name)[0]) if archive else child.name
            telling = archive or (owner and owner.time)  # the name may say which attempt this is
            found.append(Portion(child.below((child.name,) if telling else ()), label, owner, "/".join(path),
                                 not archive))
    for entry in node.entries:
        owner, label = names.owner(entry.name), reader.student(entry.name)
        if not label and (reader.exercises(entry.name) or (entry.problem and not names.kind(entry.name))):
            # A file that only says which exercise it is; or a folder or an archive that cannot be opened.
            label = node.name if names.kind(entry.name) else os.path.splitext(entry.name)[0]
        if owner or label:
            found.append(Portion([((entry.name,), entry)], label, owner, "/".join(path)))
        else:
            loose.append(entry)
    return found


def _speaks(node, reader):
    """Whether something below a folder may be an exercise."""
    return any(names.kind(entry.name) or reader.exercises(entry.name) for _, entry in node.below())


def _holds_students(node, reader, alone):
    """Whether a folder is no student's but holds those of students. alone: there is no other beside it."""
    owners = {owner for name in [*node.nodes, *(e.name for e in node.entries)] if (owner := names.owner(name))}
    if len({(owner.student, owner.id) for owner in owners}) > 1:
        return True
    if _is_project(node) or any(reader.exercises(entry.name) for entry in node.entries):
        return False
    inner = [child for child in node.nodes.values() if not reader.exercises(child.name)
             and not names.VERSION.fullmatch(child.name) and _speaks(child, reader)]
    times = Counter(number for child in inner for number in {
        number for _, entry in child.below() for number in reader.exercises(entry.name)})
    return any(n > 1 for n in times.values()) or (
        alone and bool(inner) and (len(inner) > 1 or bool(names.ASSIGNMENT.fullmatch(names.stem(node.name)))))


def _students(portions, reader):
    """The Students: what is of one owner goes together, under a name that nobody else has."""
    shared = _common_start({p.owner.student for p in portions if p.owner and p.owner.shared})
    groups = defaultdict(list)
    for p in portions:
        student = p.owner and (p.owner.student.removeprefix(shared) if p.owner.shared else p.owner.student)
        groups[(student, p.owner.id) if p.owner else (p.label, None)].append(p)
    ids = Counter(student for student, _ in groups)
    students = []
    for (name, number), some in groups.items():
        if number is None and _clash(some, reader):
            students += [Student(f"{p.path}/{name}", "", p.entries) for p in some]
            continue
        if number is not None:  # a folder keeps its name; without one the owner's name is the student's
            name = next((p.label for p in some if p.folder), f"{name}_{number}" if ids[name] > 1 else name)
        students.append(Student(name, number or "", [one for p in some for one in p.entries]))
    taken = Counter()
    for student in students:
        student.name = printable(student.name, keep="")
        taken[student.name] += 1
        student.name += f" #{taken[student.name]}" if taken[student.name] > 1 else ""
    return students


def _common_start(texts):
    """What a platform wrote before the names of all students, the name of the assignment with the _ after it."""
    text = min(texts, default="")
    while len(texts) > 1 and not all(other.startswith(text) for other in texts):
        text = text[:-1]
    return text[:text.rfind("_") + 1]


def _clash(portions, reader):
    """Whether portions of one name lie in different folders and hold the same exercise: then they are of two people."""
    numbers = [{n for _, entry in p.entries for n in reader.exercises(entry.name)} for p in portions]
    return len({p.path for p in portions}) > 1 and any(a & b for i, a in enumerate(numbers) for b in numbers[i + 1:])
