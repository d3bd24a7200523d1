"""The book: its mathematics, Markdown and colours, and the file itself in a real browser, where one is installed."""

import base64
import html
import json
import re
import struct

import numpy as np
import pytest

from lessons import __main__ as command
from lessons.course.pages import book, highlight, markdown, mathml, scripts
from lora_np.byhand import worksheet
from lora_np.support.notation import matrix

from .browser import Browser, missing


def browser(test):
    """Mark a test that opens the book in a browser."""
    return pytest.mark.live(pytest.mark.skipif(bool(missing()), reason=missing())(test))


WIDTHS = (380, 1400)
LESSONS = {name: path for name, path in scripts.lessons().items() if path.with_name("README.md").exists()}
PAGES = [path.with_name("README.md") for path in LESSONS.values()] + [book.MAP, book.PRACTICE]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The book, written anew."""
    return book.write(tmp_path_factory.mktemp("book") / "book.html")


@pytest.fixture(scope="module")
def tab():
    with Browser() as tab:
        yield tab


def plain(markup):
    return html.unescape(re.sub(r"<[^>]+>", "", markup))


def formulas():
    """(page, LaTeX) of every formula of the course."""
    texts = [(path, "\n\n".join(map(scripts.page_blocks, scripts.parse(path)))) for path in scripts.lessons().values()]
    texts += [(page, page.read_text(encoding="utf-8")) for page in (book.MAP, book.PRACTICE)]
    return [(page, latex) for page, text in texts
            for pair in re.findall(r"```math\n(.*?)\n```|\$`([^`]+)`\$", text, re.S) for latex in pair if latex]


# Mathematics

@pytest.mark.parametrize(("latex", "expected"), [
    (r"W_0", "<msub><mi>W</mi><mn>0</mn></msub>"),
    (r"A_{ij}^2", "<msubsup><mi>A</mi><mrow><mi>i</mi><mi>j</mi></mrow><mn>2</mn></msubsup>"),
    (r"\frac{1}{\sqrt c}", "<mfrac><mn>1</mn><msqrt><mi>c</mi></msqrt></mfrac>"),
    (r"\frac12", None),
    (r"10^{-16}", "<msup><mn>10</mn><mrow><mo>−</mo><mn>16</mn></mrow></msup>"),
    (r"\sum_i x_i", "<mrow><munder><mo>∑</mo><mi>i</mi></munder><msub><mi>x</mi><mi>i</mi></msub></mrow>"),
    (r"\hat b_i", '<msub><mover accent="true"><mi>b</mi><mo stretchy="false">^</mo></mover><mi>i</mi></msub>'),
    (r"W'", "<msup><mi>W</mi><mo>′</mo></msup>"),
    (r"\text{a < b}", "<mtext>a&nbsp;&lt;&nbsp;b</mtext>"),
])
def test_a_formula_as_mathml(latex, expected):
    if expected is None:  # two digits are one number here: write \frac{1}{2}
        with pytest.raises(ValueError, match="missing"):
            mathml.mathml(latex)
    else:
        assert mathml.mathml(latex) == f"<math>{expected}</math>"


@pytest.mark.parametrize(("latex", "words"), [
    (r"\foo x", r"the command \foo is not known"), (r"\begin{matrix}", r"the command \begin"), ("a & b", "'&' is not known"),
    ("{a", "a { without its }"), ("a}", "a } without its {"), ("x_", "missing at the end"), ("x_1_2", "two subscripts"),
    (r"\frac{a}", "missing"), (r"\text x", r"the command \text"),
])
def test_a_formula_that_is_not_known_raises_and_shows_it(latex, words):
    with pytest.raises(ValueError, match=re.escape(words)) as raised:
        mathml.mathml(latex)
    assert latex in str(raised.value)


def test_the_converter_knows_exactly_the_commands_that_occur():
    used = {name for _, latex in formulas() for name in re.findall(r"\\([A-Za-z]+|.)", latex)}
    known = {*mathml.LETTERS, *mathml.OPERATORS, *mathml.BARS, *mathml.FUNCTIONS, *mathml.SPACES, "dots", "frac", "sqrt",
             "hat", "text"}
    assert known == used


def test_every_formula_is_balanced_mathml_with_all_its_letters():
    for page, latex in formulas():
        made = mathml.mathml(latex)
        stack = []
        for close, name, alone in re.findall(r"<(/?)(\w+)[^>]*?(/?)>", made):
            if close:
                assert stack.pop() == name, (page, latex)
            elif not alone:
                stack.append(name)
        letters = re.sub(r"\\(text\{[^}]*\}|[A-Za-z]+)", "", latex)
        assert not stack and all(letter in made for letter in re.findall(r"[A-Za-z]", letters)), (page, latex)


# Markdown and colours

def test_an_error_names_page_and_line(tmp_path, monkeypatch):
    page = tmp_path / "lessons" / "99_wrong" / "README.md"
    page.parent.mkdir(parents=True)
    monkeypatch.setattr(book, "LESSONS", tmp_path / "lessons")
    monkeypatch.setattr(book, "_chapters", lambda: [book.Chapter("99_wrong", page, "99")])
    for text, words in [("# 99. A title\n\nfine\n\nso $`\\foo`$ it is\n", r"99_wrong/README.md, line 5: the command \foo"),
                        ("# 99. A title\n\n```math\nx & y\n```\n", "line 3: '&' is not known"),
                        ("# 99. A title\n\n> quoted\n", "line 3: the book does not know this Markdown"),
                        ("# 99. A title\n\n```python\nx = 1\n", "line 3: a fence")]:
        page.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=re.escape(words)):
            book.write(tmp_path / "book.html")
    assert not (tmp_path / "book.html").exists()


def test_prose_as_html():
    assert markdown.inline('a **bold *and* `code`** [link](x.md) "said" $`x_1`$ 1 < 2') == (
        "a <strong>bold <em>and</em> <code>code</code></strong> <a href=\"x.md\">link</a> “said” "
        "<math><msub><mi>x</mi><mn>1</mn></msub></math> 1 &lt; 2")


def test_colours_change_no_character_of_the_code():
    for path in scripts.lessons().values():
        for cell in scripts.parse(path):
            if cell.kind == "code":
                assert plain(highlight.highlight(cell.shown)) == cell.shown
    for excerpt in ("    kept = [(t, vjp) for t in", "x = '''never closed", "a\n  b\n c"):
        assert plain(highlight.highlight(excerpt)) == excerpt
    shown = highlight.highlight('def f(x):\n    return f"{x!r:>3}" + print(1.5)  # why')
    assert [m[1] for m in re.finditer('class="([a-z]+)"', shown)] == [
        "keyword", "defined", "keyword", "string", "builtin", "number", "comment"]


# The file

def test_the_book_is_one_file_that_needs_nothing_else(made):
    text = made.read_text(encoding="utf-8")
    assert not re.search(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?!data:)', text)
    assert not re.search(r"@import|url\(", text) and "default-src 'none'" in text
    scripts_of_it = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(scripts_of_it) == 1
    assert len((book.HERE / "live.js").read_text(encoding="utf-8").splitlines()) <= 200


def test_the_book_holds_every_page_with_its_figures_and_code(made):
    text = made.read_text(encoding="utf-8")
    for path in LESSONS.values():
        article = re.search(rf'<article id="{path.parent.name}">.*?</article>', text, re.S)[0]
        images = re.findall(r'<img alt="([^"]+)" src="data:image/png;base64,([^"]+)">', article)
        page = path.with_name("README.md").read_text(encoding="utf-8")
        assert [html.unescape(alt) for alt, _ in images] == re.findall(r"^!\[([^\]]+)\]", page, re.M)
        assert all(base64.b64decode(data).startswith(b"\x89PNG") for _, data in images)
        for cell in scripts.parse(path):
            if cell.kind == "code" and cell.shown:
                assert cell.shown in plain(article)
        assert "# page" not in plain(article)
        assert len(re.findall(r"<math", article)) >= len(re.findall(r"\$`|```math", page))


def test_links_inside_the_book_lead_somewhere(made):
    text = made.read_text(encoding="utf-8")
    anchors = re.findall(r'\bid="([^"]+)"', text)
    assert len(anchors) == len({*anchors})
    body = text[:text.index("<script>")]
    for target in re.findall(r'href="([^"]+)"', body):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif "://" not in target and not target.startswith("data:"):
            assert (book.LESSONS / target).exists(), target


def test_the_command_writes_it_and_says_where(monkeypatch, tmp_path, capsys):
    opened = []
    monkeypatch.setattr(command.webbrowser, "open", opened.append)
    monkeypatch.setattr(book.write, "__defaults__", (tmp_path / "book.html",))
    assert command.main(["book", "--open"]) == 0
    assert (tmp_path / "book.html").exists() and str(tmp_path / "book.html") in capsys.readouterr().out
    assert opened == [(tmp_path / "book.html").as_uri()]


# In a browser

FITS = """(() => {
  const wide = [];
  for (const e of document.querySelectorAll("body *")) {
    if (e.closest("pre, .table, .display, .wide") !== null && !e.matches("pre, .table, .display, .wide")) continue;
    const box = e.getBoundingClientRect();
    if (box.width && (box.right > innerWidth + 0.5 || box.left < -0.5)) wide.push(e.tagName + " " + e.className);
  }
  return {wide, page: document.documentElement.scrollWidth, window: innerWidth};
})()"""
MATHS = """[...document.querySelectorAll("math")].map((m) => {
  const box = m.getBoundingClientRect();
  return [box.width, box.height, m.querySelectorAll("merror").length];
})"""
CONTRASTS = """(() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => numbers(color).slice(0, 3).map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (!/, 0\\)$|transparent/.test(color)) return color;
    }
  };
  const pale = new Map();
  for (const e of document.querySelectorAll("body *")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || !e.getClientRects().length) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
    const found = (a + 0.05) / (b + 0.05);
    if (found < 4.5) pale.set(`${e.tagName} ${e.className} ${getComputedStyle(e).color}`, found);
  }
  return [...pale];
})()"""


@browser
@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_window_and_no_formula_fails(tab, made, width):
    tab.open(made, width)
    assert not tab.console
    found = tab.run(FITS)
    assert found["window"] == width and found["page"] <= width and found["wide"] == []
    maths = tab.run(MATHS)
    text = made.read_text(encoding="utf-8")
    assert len(maths) == text[:text.index("<script>")].count("<math")
    assert all(wide > 2 and high > 2 and not errors for wide, high, errors in maths)


@browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_word_can_be_read(tab, made, dark):
    tab.open(made, 1400, dark=dark)
    dark_page = "rgb(23, 24, 27)"
    assert (tab.run("getComputedStyle(document.body).backgroundColor") == dark_page) == dark
    assert tab.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })") is None
    assert tab.run(CONTRASTS) == []


@browser
def test_without_scripts_everything_but_the_live_parts_is_there(tab, made):
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(made, 380)
        root = tab.call("DOM.getDocument", depth=0)["root"]["nodeId"]
        def count(selector):
            return len(tab.call("DOM.querySelectorAll", nodeId=root, selector=selector)["nodeIds"])
        assert count("article") == count("#chapters > li") == len(PAGES) and count("figure img") > 15
        assert count(".live[hidden]") == count(".live") == 2 and count(".search[hidden]") == 1
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)


@browser
def test_search_and_keys(tab, made):
    tab.open(made, 1400)
    tab.press("/")
    assert tab.run("document.activeElement.type") == "search"
    tab.run("(() => { const i = document.querySelector('nav input'); i.value = 'Kepler'; "
            "i.dispatchEvent(new Event('input')); })()")
    assert tab.run("[...document.querySelectorAll('#found a')].map((a) => a.getAttribute('href'))") == [
        "#04_training_loop--the-loop"]
    assert "Kepler" in tab.run("document.querySelector('#found mark').textContent")
    tab.run("(() => { const i = document.querySelector('nav input'); i.value = 'no such word'; "
            "i.dispatchEvent(new Event('input')); })()")
    assert tab.run("document.querySelector('#found').textContent") == "Nothing found"
    tab.press("Escape")
    tab.run("location.hash = '08_parameter_counts'")
    tab.run("new Promise((done) => setTimeout(done, 100))")
    tab.press("ArrowRight")
    assert tab.run("location.hash") == "#09_lora_layer"
    tab.press("ArrowLeft")
    assert tab.run("location.hash") == "#08_parameter_counts"
    assert not tab.console


SET = """(sheet) => {
  const section = document.querySelector("#live-byhand"), rank = section.querySelector("select");
  rank.value = sheet.A.length;
  rank.dispatchEvent(new Event("change"));
  for (const [name, rows] of Object.entries(sheet)) rows.forEach((row, i) => row.forEach((value, j) => {
    const input = section.querySelector(`[name="${name}[${i},${j}]"]`);
    input.value = value;
    input.dispatchEvent(new Event("input"));
  }));
  const read = (table) => [...table.querySelectorAll("tbody tr")].map((row) =>
    [...row.cells].map((cell) => cell.textContent.replaceAll("−", "-")));
  return [...section.querySelectorAll("table")].map(read);
}"""


def sheets():
    yield worksheet.worked_example()
    yield worksheet.at_start(worksheet.worked_example())
    rng = np.random.default_rng(0)
    for n in range(20):
        yield worksheet.random_sheet(rng, f"sheet {n}", "", rank=1 + n % 2)


@browser
def test_the_worked_example_is_that_of_byhand(tab, made):
    tab.open(made, 1400)
    for sheet in sheets():
        column = {name: getattr(sheet, name)[:, None].tolist() for name in "xy"}
        given = {**column, "W0": sheet.W0.tolist(), "A": sheet.A.tolist(), "B": sheet.B.tolist(),
                 "alpha": [[sheet.alpha]]}
        lines, slopes = tab.run(f"({SET})({json.dumps(given)})")
        shown = {name: value for name, _, value in lines}
        right = worksheet.by_hand(sheet)
        for name in ("s", "W0x", "u", "v", "h", "L", "dh", "dv", "dB", "du", "dA"):
            assert numbers(shown[name]) == pytest.approx(np.ravel(right[name]), abs=1e-5), (sheet.title, name)
            assert shown[name] == matrix(right[name], 6), (sheet.title, name)
        assert numbers(shown["dx"].split("=")[1]) == pytest.approx(right["dx"], abs=1e-5)
        assert shown["dW0"] == "not computed: W0 is frozen"
        by_slope = worksheet.by_slope(sheet)
        rows = iter(slopes)
        for name in "ABx":
            for up, down, formula in zip(*map(np.ravel, (*by_slope[name], right[f"d{name}"])), strict=True):
                _, *values, verdict = next(rows)
                assert [float(v) for v in values] == pytest.approx([up, down, (up - down) / 2, formula], abs=1e-5)
                assert verdict == "agree"
        assert next(rows, None) is None
    assert not tab.console


def numbers(text):
    return [float(n) for n in re.findall(r"-?[\d.]+", text)]


@browser
@pytest.mark.parametrize(("d", "r", "words"), [
    (12, 3, ["16,777,216", "65,536", "256 times fewer", "2,048"]), (6, 5, ["4,096", "4,096", "break-even", "32"]),
    (3, 4, ["64", "256", "4 times more", "= 4"])])
def test_the_sliders_count(tab, made, d, r, words):
    tab.open(made, 1400)
    tab.run(f"""(() => {{
      for (const [name, value] of [["d", {d}], ["r", {r}]]) {{
        const slider = document.querySelector(`#live-counts [name="${{name}}"]`);
        slider.value = value;
        slider.dispatchEvent(new Event("input"));
      }}
    }})()""")
    shown = [tab.run(f"document.querySelector('#live-counts [name={name}]').textContent")
             for name in ("full", "lora", "verdict", "even")]
    assert all(word in text for word, text in zip(words, shown, strict=True)), shown


@browser
def test_a_chapter_begins_on_a_page_of_its_own_in_print(tab, made):
    tab.open(made, 1400)
    tab.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert {*tab.run("[...document.querySelectorAll('article')].map((a) => getComputedStyle(a).breakBefore)")} == {"page"}
        assert tab.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    finally:
        tab.call("Emulation.setEmulatedMedia", media="")


@browser
def test_pictures_of_the_book_are_not_empty(tab, made):
    for width in WIDTHS:
        tab.open(made, width)
        png = base64.b64decode(tab.call("Page.captureScreenshot", format="png")["data"])
        assert struct.unpack(">II", png[16:24])[0] == width and len(png) > 10_000
