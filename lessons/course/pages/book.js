// Search, keys, and where in the book the reader is. Without scripts the book reads as well.
(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const chapters = all("article"), entries = all("#chapters > li");
  const input = document.querySelector("nav input"), found = document.querySelector("#found");
  const list = document.querySelector("#chapters");

  // The chapter that is read is marked in the contents.
  const here = () => chapters.reduce((found, a, i) => (a.getBoundingClientRect().top < innerHeight / 3 ? i : found), 0);
  let last;
  const mark = () => {
    if (last === here()) return;
    last = here();
    entries.forEach((entry, i) => entry.classList.toggle("here", i === last));
    if (innerWidth > 1100) entries[last].scrollIntoView({block: "nearest"});
  };
  addEventListener("scroll", mark, {passive: true});
  mark();

  // A section is a heading and what follows it, up to the next.
  let index;
  const sections = () => chapters.flatMap((chapter) => {
    const title = chapter.querySelector("h1").textContent, parts = [{at: chapter.id, title, words: ""}];
    for (const block of chapter.children) {
      const heading = block.tagName === "H2" && block.firstChild.textContent;
      if (heading) parts.push({at: block.id, title: `${title}: ${heading}`, words: ""});
      parts[parts.length - 1].words += ` ${block.textContent}`;
    }
    return parts;
  });

  const search = () => {
    const wanted = input.value.trim().toLowerCase();
    list.hidden = Boolean(wanted);
    found.hidden = !wanted;
    found.replaceChildren();
    if (!wanted) return;
    index ||= sections().map((s) => ({...s, words: s.words.replace(/\s+/g, " ")}));
    const hits = index.filter((s) => s.words.toLowerCase().includes(wanted)).slice(0, 20);
    for (const {at, title, words} of hits) {
      const [item, link, small, hit] = ["li", "a", "small", "mark"].map((tag) => document.createElement(tag));
      const place = words.toLowerCase().indexOf(wanted);
      hit.textContent = words.slice(place, place + wanted.length);
      small.append(words.slice(Math.max(0, place - 40), place), hit, words.slice(place + wanted.length).slice(0, 60));
      Object.assign(link, {href: `#${at}`, textContent: title});
      item.append(link, small);
      found.append(item);
    }
    if (!hits.length) found.textContent = "Nothing found";
  };
  document.querySelector(".search").hidden = false;
  input.addEventListener("input", search);
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter") found.querySelector("a")?.click();
    if (event.key === "Escape") { input.value = ""; search(); input.blur(); }
  });

  // Left and right: the chapter before and the next. A slash: search.
  addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, select, textarea, pre, .table");
    if (typing || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const to = chapters[here() + ({ArrowLeft: -1, ArrowRight: 1}[event.key] ?? NaN)];
    if (to) location.hash = to.id;
    if (event.key === "/") { event.preventDefault(); input.focus(); }
  });
})();
