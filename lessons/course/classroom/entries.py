"""What a collection of hand-ins holds: every file in it, also those in archives, looked at and not unpacked.

Whatever a student put there takes bounded time and memory: no link leads out of the collection, no device is opened, no
file is read beyond its limit, and an archive is read where it is, so that no path of its own can be written to.
"""

import codecs
import contextlib
import io
import os
import re
import stat
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..checking.judge import LARGEST

LARGEST_ARCHIVE = 50 << 20
MOST = 20_000              # files in an archive, or in a folder of a student's and all below it
DEEPEST = 12
BROKEN = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError)
SKIPPED = {"__pycache__", "__macosx", "node_modules", "site-packages", "thumbs.db", "desktop.ini"}


class Unreadable(Exception):
    """A file that is there and cannot be read, and why."""


@dataclass(frozen=True, eq=False)
class Entry:
    """One file, or one folder that holds none. parts: its path in the collection. problem: why it cannot be read.

    path: the real file; None in an archive. time: when it was changed, in seconds.
    """

    parts: tuple
    read: Callable = bytes
    size: int = 0
    time: float = 0.0
    path: Path | None = None
    problem: str = ""
    folder: bool = False

    @property
    def name(self):
        return self.parts[-1]


def collect(root):
    """Every Entry of a folder, or of an archive. Raises ValueError for anything else."""
    root = Path(root)
    if root.is_dir():
        return list(_folder(root, (), os.path.realpath(root)))
    if root.is_file() and zipfile.is_zipfile(root):
        archive = zipfile.ZipFile(root)
        return list(_members(lambda: contextlib.nullcontext(archive), (), 0))
    raise ValueError(f"{root} is no folder and no .zip; expected one that holds a folder for each student")


def _ignored(name):
    return name.startswith((".", "~$")) or name.casefold() in SKIPPED


def _folder(folder, parts, root):
    """The entries below a folder, and the folder itself where there are none."""
    try:
        found = sorted(os.scandir(folder), key=lambda item: item.name)
    except OSError as error:
        yield Entry(parts, problem=f"cannot be opened ({error.strerror})")
        return
    if len(parts) > DEEPEST or any(item.name == "pyvenv.cfg" for item in found):
        return
    count = 0
    for item in found:
        if _ignored(item.name):
            continue
        for entry in _item(item, (*parts, item.name), root):
            yield entry
            count += 1
            if count > MOST and len(parts) > 1:
                yield Entry((*parts, "…"), problem=f"is not looked at: the folder holds more than {MOST:,} files")
                return
    if not count:
        yield Entry(parts, folder=True)


def _item(item, parts, root):
    """The entries of one thing in a folder, whatever it is."""
    try:
        if item.is_dir(follow_symlinks=False):
            yield from _folder(item.path, parts, root)
            return
        target = os.path.realpath(item.path)
        if item.is_symlink() and (not os.path.isfile(target) or os.path.commonpath([target, root]) != root):
            yield Entry(parts, problem=f"is a link to {os.readlink(item.path)}, which is not followed")
            return
        found = os.stat(target)
    except (OSError, ValueError) as error:
        yield Entry(parts, problem=f"cannot be opened ({getattr(error, 'strerror', None) or error})")
        return
    kinds = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"),
             (stat.S_ISBLK, "a device"))
    if odd := next((text for test, text in kinds if test(found.st_mode)), None):
        yield Entry(parts, problem=f"is {odd} and no file")
        return
    yield from _opened(Entry(parts, _reader(Path(item.path)), found.st_size, found.st_mtime, Path(item.path)), 0)


def _reader(path):
    def read(most=LARGEST):
        try:
            with open(path, "rb") as file:
                return file.read(most + 1)
        except OSError as error:
            raise Unreadable(f"cannot be read ({error.strerror})") from None
    return read


def _opened(entry, depth):
    """An entry with its problem, if it has one; in the place of an archive, what it holds."""
    if not entry.name.casefold().endswith(".zip"):
        yield _checked(entry, LARGEST)
        return
    def opened():
        return zipfile.ZipFile(io.BytesIO(entry.read(LARGEST_ARCHIVE)))

    checked = _checked(entry, LARGEST_ARCHIVE)
    if not checked.problem:
        try:
            if entry.read(LARGEST_ARCHIVE).count(b"PK\1\2") > MOST:  # the mark of each name in an archive's list
                raise Unreadable(f"holds more than {MOST:,} files")
            yield from list(_members(opened, entry.parts, depth + 1)) or [Entry(entry.parts, folder=True)]
            return
        except BROKEN:
            checked = _with_problem(entry, "is no archive that can be opened")
        except Unreadable as error:
            checked = _with_problem(entry, str(error))
    yield checked


def _checked(entry, most):
    return _with_problem(entry, f"is too large ({entry.size / 1e6:,.0f} MB)") if entry.size > most else entry


def _with_problem(entry, problem):
    return Entry(entry.parts, size=entry.size, time=entry.time, path=entry.path, problem=problem)


def _members(opened, parts, depth):
    """The entries of an archive. opened: gives it, in a with statement."""
    with opened() as archive:
        members = [(_path(info), info) for info in archive.infolist()]
    filled = {inside[:n] for inside, _ in members for n in range(len(inside))}
    for inside, info in members:
        if any(name != ".." and _ignored(name) for name in inside) or (info.is_dir() and inside in filled):
            continue
        problem = ("points out of its archive" if ".." in inside else "is encrypted" if info.flag_bits & 1 else
                   "is a link, which is not followed" if stat.S_ISLNK(info.external_attr >> 16) else "")
        entry = Entry((*parts, *inside), _member_reader(opened, info), info.file_size, _time(info), None, problem,
                      info.is_dir())
        if problem or entry.folder or depth > 2:
            yield entry
        else:
            yield from _opened(entry, depth)


def _path(info):
    """The parts of a member's path; an absolute one leads out, as .. does. UTF-8 need not be marked as such."""
    name = info.filename
    if not info.flag_bits & 0x800:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    name = name.replace("\\", "/")
    outside = [".."] if name.startswith("/") or re.match(r"[A-Za-z]:", name) else []
    return tuple(outside + [part for part in name.split("/") if part not in ("", ".")]) or ("?",)


def _time(info):
    try:
        return time.mktime((*info.date_time, 0, 0, -1))
    except (ValueError, OverflowError):
        return 0.0


def _member_reader(opened, info):
    def read(most=LARGEST):
        try:
            with opened() as archive, archive.open(info) as file:
                return file.read(most + 1)
        except BROKEN as error:
            raise Unreadable(f"cannot be read ({error})") from None
    return read


def encoding(data):
    """The encoding of a text file: UTF-16 where its first bytes say so, else UTF-8, with a mark at its start or not."""
    return "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
