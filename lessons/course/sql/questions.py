"""Questions about made-up tables, each with the query that answers it. Nobody's data: every line is made here.

    Table employees: name, department, salary, bonus, tenure
    Question: What is the salary of Ada?
    SQL: SELECT salary FROM employees WHERE name = 'Ada'

`python -m lessons.course.sql.questions` writes lesson 14's pairs.jsonl.
"""

import json
import random
from dataclasses import dataclass

from .. import LESSONS
from .databases import FILLS, run, shuffled
from .tables import SEEN, Table

PAIRS = LESSONS / "14_language_model" / "pairs.jsonl"


@dataclass(frozen=True)
class Kind:
    """A kind of question: how it may be put, and the query that answers it."""

    name: str
    wordings: tuple
    query: str


EASY = (
    Kind("look up", ("What is the {number} of {row}?", "Tell me the {number} of {row}."),
         "SELECT {number} FROM {table} WHERE {key} = '{row}'"),
    Kind("count", ("How many {table} are there whose {number} is {above} {n}?",
                   "Count the {table} whose {number} is {above} {n}."),
         "SELECT COUNT(*) FROM {table} WHERE {number} {above_sql} {n}"),
    Kind("average", ("What is the average {number} of the {table} of {group} {value}?",
                     "For {group} {value}, give the average {number} of the {table}."),
         "SELECT AVG({number}) FROM {table} WHERE {group} = '{value}'"),
    Kind("first", ("Which {one} of {group} {value} has the {highest} {number}?",
                   "For {group} {value}, name the {one} with the {highest} {number}."),
         "SELECT {key} FROM {table} WHERE {group} = '{value}' ORDER BY {number} {highest_sql} LIMIT 1"),
)
HARD = (
    Kind("two conditions", ("Which {table} have a {number} {above} {n} {both} a {other} {below} {m}?",
                            "Name the {table} whose {number} is {above} {n} {both} whose {other} is {below} {m}."),
         "SELECT {key} FROM {table} WHERE {number} {above_sql} {n} {both_sql} {other} {below_sql} {m}"),
    Kind("first few", ("Which {few} {table} of {group} {value} have the {highest} {number}?",
                       "For {group} {value}, name the {few} {table} with the {highest} {number}."),
         "SELECT {key} FROM {table} WHERE {group} = '{value}' ORDER BY {number} {highest_sql} LIMIT {few_sql}"),
    Kind("each group", ("What is the {average} {number} for each {group}?",
                        "Give each {group} with the {average} {number} of its {table}."),
         "SELECT {group}, {average_sql}({number}) FROM {table} GROUP BY {group}"),
    Kind("first group", ("Which {group} has the {highest} {average} {number}?",
                         "Name the {group} whose {table} have the {highest} {average} {number}."),
         "SELECT {group} FROM {table} GROUP BY {group} ORDER BY {average_sql}({number}) {highest_sql} LIMIT 1"),
    Kind("some groups", ("For which {group} is the average {number} {above} {n}?",
                         "Name each {group} whose {table} have an average {number} {above} {n}."),
         "SELECT {group} FROM {table} GROUP BY {group} HAVING AVG({number}) {above_sql} {n}"),
    Kind("more than one", ("Which {table} have a {number} {above} that of {row}?",
                           "Name the {table} whose {number} is {above} the {number} of {row}."),
         "SELECT {key} FROM {table} WHERE {number} {above_sql} (SELECT {number} FROM {table} WHERE {key} = '{row}')"),
    Kind("join, one row", ("What is the {detail} of the {group} of {row}?",
                           "Tell me the {detail} of {row}'s {group}."),
         "SELECT {smaller}.{detail} FROM {table} JOIN {smaller} ON {table}.{group} = {smaller}.name "
         "WHERE {table}.{key} = '{row}'"),
    Kind("join, some rows", ("Which {table} are of a {group} whose {detail} is {above} {k}?",
                             "Name the {table} for whose {group} the {detail} is {above} {k}."),
         "SELECT {table}.{key} FROM {table} JOIN {smaller} ON {table}.{group} = {smaller}.name "
         "WHERE {smaller}.{detail} {above_sql} {k}"),
)
LEVELS = {"easy": EASY, "hard": HARD}
CHOICES = {  # word in a question: word in a query
    "above": {"above": ">", "below": "<"}, "below": {"above": ">", "below": "<"}, "both": {"and": "AND", "or": "OR"},
    "highest": {"highest": "DESC", "lowest": "ASC"}, "few": {"two": "2", "three": "3"},
    "average": {"average": "AVG", "total": "SUM"},
}


@dataclass(frozen=True)
class Question:
    """A question about a table, as a prompt, and the query that answers it."""

    table: Table
    kind: str
    prompt: str
    query: str

    @property
    def completion(self):
        return " " + self.query


def questions(level, n, seed, tables=SEEN, without=()):
    """n different questions: in turn of each kind, and about each table. The same for the same seed, on every Python.

    without: prompts that are not to be among them. Each query gives rows, however its tables are filled.
    """
    rng, kinds = random.Random(seed), LEVELS[level]
    asked, found = set(without), []
    while len(found) < n:
        kind, table = kinds[len(found) % len(kinds)], tables[len(found) // len(kinds) % len(tables)]
        question = draw(rng, kind, table, both=level == "hard")
        if question.prompt not in asked and all(run(table, fill, question.query) for fill in FILLS):
            asked.add(question.prompt)
            found.append(question)
    return shuffled(rng, found)


def draw(rng, kind, table, both):
    """A question of this kind about this table. both: its prompt shows the smaller table, too."""
    def one_of(values):
        return values[int(rng.random() * len(values))]  # random() is the part of random that no Python changes

    def number_in(column, name):
        values = sorted(value for value, in run(table, FILLS[0], f"SELECT {column} FROM {name}"))
        return one_of(values[len(values) // 4:-(len(values) // 4)])  # one that is there: > is not the same as >=

    number, other, _ = shuffled(rng, table.numbers)
    detail = one_of(table.details)
    words = {"table": table.name, "one": table.one, "key": table.key, "group": table.group, "smaller": table.smaller,
             "number": number, "other": other, "detail": detail, "row": one_of(table.rows),
             "value": one_of(table.groups), "n": number_in(number, table.name), "m": number_in(other, table.name),
             "k": number_in(detail, table.smaller)}
    for name, choices in CHOICES.items():
        words[name] = one_of([*choices])
        words[f"{name}_sql"] = choices[words[name]]
    prompt = f"{table.columns(both)}\nQuestion: {one_of(kind.wordings).format(**words)}\nSQL:"
    return Question(table, kind.name, prompt, kind.query.format(**words))


def training_pairs():
    """The lines of pairs.jsonl: easy questions about the tables seen, with the completions to be learned."""
    return [{"prompt": question.prompt, "completion": question.completion} for question in questions("easy", 240, 14)]


if __name__ == "__main__":
    PAIRS.write_text("".join(json.dumps(pair) + "\n" for pair in training_pairs()), encoding="ascii", newline="\n")
    print(f"{len(training_pairs())} questions to {PAIRS.name}")
