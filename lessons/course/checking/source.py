"""What stands in a student's file: its functions, whom they call, and a few slips that the text alone shows.

It is read here and not run.
"""

import ast
import warnings

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Source:
    """The text of a file. Everything is empty where that is not Python."""

    def __init__(self, text):
        self.lines = text.splitlines()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            self.tree = ast.Module([], [])
        self.functions = {node.name: node for node in self.tree.body if isinstance(node, DEFINITIONS)}

    def line(self, number):
        """A line of the file, without the space around it."""
        return self.lines[number - 1].strip() if 0 < number <= len(self.lines) else ""

    def code(self, name):
        """A function with those of the file that it uses, as plain code without comments and docstrings."""
        return "\n".join(_unparsed(node) for node in self._reached(name))

    def plain(self):
        """The whole file as code without comments, docstrings and layout; "" where it is no Python."""
        try:
            return "\n".join(_unparsed(node) if isinstance(node, DEFINITIONS) else ast.unparse(node)
                             for node in _body(self.tree))
        except RecursionError:
            return ""

    def calls(self, name):
        """The names of the file's functions that a function uses, itself left out."""
        return {node.name for node in self._reached(name)} - {name}

    def _reached(self, name):
        """The nodes of a function and of the functions of the file that it uses, directly or not."""
        found, todo = {}, [name]
        while todo:
            name = todo.pop()
            if name in self.functions and name not in found:
                found[name] = self.functions[name]
                todo += [n.id for n in ast.walk(found[name]) if isinstance(n, ast.Name)]
        return list(found.values())

    def nested(self, name):
        """(line, name of the function or class around it) of a function that is not at the top of the file, or None."""
        for outer in ast.walk(self.tree):
            if isinstance(outer, (*DEFINITIONS, ast.ClassDef)):
                for node in ast.walk(outer):
                    if node is not outer and isinstance(node, DEFINITIONS) and node.name == name:
                        return node.lineno, outer.name
        return None

    def forgotten_raise(self, name):
        """(line of the raise NotImplementedError, first line of code beside it) of a function that has both."""
        body = _body(self.functions.get(name))
        raises, others = list(filter(_is_raise, body)), [node for node in body if not _is_filler(node)]
        return (raises[0].lineno, others[0].lineno) if raises and others else None

    def is_stub(self, name):
        """Whether nothing stands in a function but its docstring and what a stub has."""
        return all(map(_is_filler, _body(self.functions.get(name))))

    def mutable_default(self, name):
        """The parameter of a function whose default is a list, dict or set, as text: "losses=[]"; None without."""
        node = self.functions.get(name)
        if node:
            positional = [*node.args.posonlyargs, *node.args.args]
            defaults = [*zip(positional[len(positional) - len(node.args.defaults):], node.args.defaults, strict=True),
                        *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
            for parameter, default in defaults:
                if isinstance(default, (ast.List, ast.Dict, ast.Set)) or (
                        isinstance(default, ast.Call) and ast.unparse(default.func) in ("list", "dict", "set")):
                    return f"{parameter.arg}={ast.unparse(default)}"
        return None


def _body(node):
    """The statements of a function or file without its docstring."""
    if node is None:
        return []
    return node.body[1:] if ast.get_docstring(node) is not None else node.body


def first_line(node):
    """The line in which a statement begins, its decorators included."""
    return min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])


def _is_raise(node):
    return isinstance(node, ast.Raise) and "NotImplementedError" in ast.unparse(node)


def _is_filler(node):
    """A statement that a function has before it is begun."""
    return _is_raise(node) or isinstance(node, ast.Pass) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _unparsed(node):
    kept = node.body
    try:
        node.body = _body(node) or [ast.Pass()]
        return ast.unparse(node)
    except RecursionError:
        return ""
    finally:
        node.body = kept
