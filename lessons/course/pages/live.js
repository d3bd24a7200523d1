// The two parts of the book that compute: the counts of lesson 08 and the worked example of lesson 09.
(() => {
  const make = (tag, options = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), options);
    element.append(...children);
    return element;
  };
  const start = (name, build) => {
    const section = document.querySelector(`#live-${name}`);
    if (section) { build(section); section.hidden = false; }
  };

  // d^2 against 2 d r, with a slider for each.
  start("counts", (section) => {
    const whole = (n) => n.toLocaleString("en-US");
    const slider = (name, most, value) => {
      const input = make("input", {type: "range", min: 0, max: most, step: 1, value, ariaLabel: name, name});
      return {input, shown: make("output"), get value() { return 2 ** Number(input.value); }};
    };
    const d = slider("d", 14, 12), r = slider("r", 14, 3);
    const full = make("div", {className: "bar full"}), lora = make("div", {className: "bar lora"});
    const fullText = make("output", {name: "full"}), loraText = make("output", {name: "lora"});
    const verdict = make("output", {name: "verdict"}), even = make("output", {name: "even"});
    const show = () => {
      const all = d.value ** 2, few = 2 * d.value * r.value, most = Math.max(all, few);
      d.shown.textContent = `d = ${whole(d.value)}`;
      r.shown.textContent = `r = ${whole(r.value)}`;
      fullText.textContent = `full: d² = ${whole(all)}`;
      loraText.textContent = `LoRA: 2dr = ${whole(few)}`;
      full.style.width = `${100 * all / most}%`;
      lora.style.width = `${100 * few / most}%`;
      verdict.textContent = few < all ? `LoRA trains ${whole(all / few)} times fewer numbers.`
        : few === all ? "Both train as many: this is the break-even."
          : `LoRA trains ${whole(few / all)} times more numbers.`;
      even.textContent = `Break-even: r = d/2 = ${whole(d.value / 2)}`;
    };
    section.append(make("h3", {textContent: "Try it: a square weight"}),
      make("label", {}, d.shown, d.input), make("label", {}, r.shown, r.input),
      make("p", {}, fullText, full, loraText, lora), make("p", {}, verdict, " ", even));
    [d, r].forEach(({input}) => input.addEventListener("input", show));
    show();
  });

  // Matrices are arrays of rows; a vector is a matrix with one column.
  const product = (X, Y) => X.map((row) => Y[0].map((_, j) => row.reduce((sum, x, i) => sum + x * Y[i][j], 0)));
  const flip = (X) => X[0].map((_, j) => X.map((row) => row[j]));
  const both = (X, Y, f) => X.map((row, i) => row.map((x, j) => f(x, Y[i][j])));
  const times = (s, X) => X.map((row) => row.map((x) => s * x));
  const loss = ({x, y, W0, A, B, alpha}) => {
    const W0x = product(W0, x), u = product(A, x), v = product(B, u), s = alpha / A.length;
    const h = both(W0x, v, (a, b) => a + s * b), dh = both(h, y, (a, b) => a - b);
    return {s, W0x, u, v, h, dh, L: product(flip(dh), dh)[0][0] / 2};
  };
  const gradients = ({x, W0, A, B}, {s, u, dh}) => {
    const dv = times(s, dh), dB = product(dv, flip(u)), du = product(flip(B), dv), dA = product(du, flip(x));
    const frozen = product(flip(W0), dh), trained = product(flip(A), du);
    return {dv, dB, du, dA, frozen, trained, dx: both(frozen, trained, (a, b) => a + b)};
  };
  const slope = (sheet, name, i, j) => {  // exact with a step of 1: L is quadratic in each single entry
    const [up, down] = [1, -1].map((step) => {
      const moved = sheet[name].map((row) => [...row]);
      moved[i][j] += step;
      return loss({...sheet, [name]: moved}).L;
    });
    return {up, down, slope: (up - down) / 2};
  };
  const number = (x) => String(Number(x.toFixed(6)) || 0).replace("-", "−");
  const matrix = (X) => `[${X.map((row) => row.map(number).join(" ")).join("; ")}]`;
  const vector = (X) => `[${X.flat().map(number).join(" ")}]`;

  start("byhand", (section) => {
    const given = {x: [[2], [3]], y: [[3], [5]], W0: [[-2, -1], [1, -1]], A: [[3, -1]], B: [[2], [0.5]], alpha: [[2]]};
    const more = {A: [[1, 2]], B: [[1], [-1]]};  // the second row and column, at r = 2
    const kinds = {W0: "frozen", A: "trainable", B: "trainable"};
    const inputs = {}, sets = make("div", {className: "inputs"}), lines = make("tbody"), slopes = make("tbody");
    const rank = make("select", {name: "r"}, ...[1, 2].map((r) => make("option", {textContent: `r = ${r}`, value: r})));
    const table = (head, body) => make("div", {className: "wide"}, make("table", {},
      make("thead", {}, make("tr", {}, ...head.map((textContent) => make("th", {textContent})))), body));
    const row = (...cells) => make("tr", {}, ...cells.map((textContent) => make("td", {textContent})));

    const read = () => {
      const sheet = Object.fromEntries(Object.entries(inputs).map(([name, rows]) => [name,
        rows.map((cells) => cells.map((cell) => Number(cell.value)))]));
      return {...sheet, alpha: sheet.alpha[0][0]};
    };
    const show = () => {
      const sheet = read(), f = loss(sheet), g = gradients(sheet, f);
      lines.replaceChildren(...[
        ["s", "alpha / r", number(f.s)], ["W0x", "W0 x", vector(f.W0x)], ["u", "A x", vector(f.u)],
        ["v", "B u", vector(f.v)], ["h", "W0 x + s v", vector(f.h)], ["L", "½ |h − y|²", number(f.L)],
        ["dh", "h − y", vector(f.dh)], ["dv", "s dh", vector(g.dv)], ["dB", "dv uᵀ", matrix(g.dB)],
        ["du", "Bᵀ dv", vector(g.du)], ["dA", "du xᵀ", matrix(g.dA)],
        ["dx", "W0ᵀ dh + Aᵀ du", `${vector(g.frozen)} + ${vector(g.trained)} = ${vector(g.dx)}`],
        ["dW0", "", "not computed: W0 is frozen"]].map((cells) => row(...cells)));
      const entries = ["A", "B", "x"].flatMap((name) => sheet[name].flatMap((cells, i) => cells.map((_, j) => [name, i, j])));
      slopes.replaceChildren(...entries.map(([name, i, j]) => {
        const by = slope(sheet, name, i, j), formula = g[`d${name}`][i][j];
        const agree = Math.abs(by.slope - formula) < 1e-6 * (1 + Math.abs(by.up) + Math.abs(by.down));
        return row(name === "x" ? `x[${i}]` : `${name}[${i},${j}]`, number(by.up), number(by.down), number(by.slope),
          number(formula), agree ? "agree" : "differ");
      }));
    };
    const build = () => {
      const r = Number(rank.value), sheet = {...given};
      if (r === 2) {
        sheet.A = [...given.A, ...more.A];
        sheet.B = given.B.map((cells, i) => [...cells, ...more.B[i]]);
      }
      sets.replaceChildren(...Object.entries(sheet).map(([name, rows]) => {
        const className = kinds[name] || "", style = `grid-template-columns: repeat(${rows[0].length}, auto)`;
        inputs[name] = rows.map((cells, i) => cells.map((value, j) => make("input", {type: "number", step: "any", value,
          className, name: `${name}[${i},${j}]`, ariaLabel: `${name}, row ${i}, column ${j}`, oninput: show})));
        return make("fieldset", {}, make("legend", {textContent: name, className}),
          make("div", {className: "grid", style}, ...inputs[name].flat()));
      }), rank, make("button", {type: "button", textContent: "as it was", onclick: build}));
      show();
    };
    rank.addEventListener("change", build);
    section.append(make("h3", {textContent: "Try it: change any number"}), sets, table(["", "formula", "value"], lines),
      make("p", {textContent: "Each gradient beside the slope between two losses: L with this one number raised by 1, and "
        + "lowered by 1. Half the difference is exact."}),
      table(["entry", "L(+1)", "L(−1)", "slope", "by formula", ""], slopes));
    build();
  });
})();
