"""The tables of the questions as databases, and queries run on them: what SQL says is what it returns."""

import random
import sqlite3
from functools import cache

FILLS = (0, 1, 2)  # an answer that is right by chance on one set of rows is wrong on another
FUNCTIONS = {"abs", "avg", "count", "like", "lower", "max", "min", "round", "sum", "total", "upper"}
STEPS = 1_000_000  # of SQLite's machine: a query of ours takes some hundred


def right(question, answer):
    """Whether an answer, SQL as a model wrote it, returns the rows of the right query, however the tables are filled.

    The order of the rows counts where the right query orders them. What is no query, fails or takes too long is wrong.
    """
    ordered = "ORDER BY" in question.query
    return all(same_rows(run(question.table, fill, question.query), run(question.table, fill, answer), ordered)
               for fill in FILLS)


def run(table, fill, query):
    """The rows that a query returns, a list of tuples; None where it is none that can be run."""
    try:
        return database(table, fill).execute(query).fetchall()
    except (sqlite3.Error, sqlite3.Warning, ValueError, MemoryError):  # no SQL; several statements; no text
        return None


def same_rows(wanted, got, ordered):
    if got is None:
        return False
    wanted, got = ([tuple(round(x, 6) if isinstance(x, float) else x for x in row) for row in rows]
                   for rows in (wanted, got))
    return wanted == got if ordered else sorted(wanted, key=repr) == sorted(got, key=repr)


@cache
def database(table, fill):
    """A database in memory with the table and the smaller one. Numbers lie from 10 to 99, each once in its column."""
    rng = random.Random(f"{table.name} {fill}")
    numbers = [shuffled(rng, range(10, 100)) for _ in (*table.numbers, *table.details)]
    sizes = zip((1, 2, 4, 5), shuffled(rng, table.groups), strict=True)  # so that no two groups are equally large
    groups = shuffled(rng, [group for size, group in sizes for _ in range(size)])
    rows = zip(table.rows, groups, *numbers[:len(table.numbers)], strict=False)  # a column has 90 numbers to give
    details = zip(table.groups, *numbers[len(table.numbers):], strict=False)
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    for name, texts, integers, content in ((table.name, (table.key, table.group), table.numbers, rows),
                                           (table.smaller, ("name",), table.details, details)):
        columns = [f"{column} TEXT" for column in texts] + [f"{column} INTEGER" for column in integers]
        connection.execute(f"CREATE TABLE {name} ({', '.join(columns)})")
        connection.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(columns))})", content)
    connection.commit()
    connection.set_authorizer(allowed)
    connection.set_progress_handler(lambda: 1, STEPS)  # anything but 0 ends the query
    return connection


def allowed(action, first, second, *_):
    """Reading is allowed: a model's answer is run as it stands, and must change no table and open no file."""
    reads = action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ)
    computes = action == sqlite3.SQLITE_FUNCTION and second in FUNCTIONS
    return sqlite3.SQLITE_OK if reads or computes else sqlite3.SQLITE_DENY


def shuffled(rng, items):
    """In an order that random() gives, the part of random that no Python changes."""
    return sorted(items, key=lambda _: rng.random())
