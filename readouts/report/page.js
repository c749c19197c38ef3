// The page without this script is complete; with it rows sort, filter, unfold and are held against each other.
"use strict";
const tasks = new Map();

class Task {
  constructor(table) {
    this.number = table.dataset.task;
    this.table = table;
    this.rows = [...table.querySelectorAll("tr[data-name]")];
    this.data = JSON.parse(document.querySelector(`[data-comparison="${this.number}"]`).textContent);
    this.at = new Map((this.data.rows || []).map((row, i) => [row.place, i]));
    this.covariances = this.data.covariances ? floats(this.data.covariances) : new Float32Array();
    this.state = { sort: "", filter: "", all: false, chosen: null, versus: null };
    this.input = document.querySelector(`[data-filter="${this.number}"]`);
    this.all = document.querySelector(`[data-all="${this.number}"]`);
    this.said = document.querySelector(`[data-said="${this.number}"]`);
    this.input.addEventListener("input", () => this.set({ filter: this.input.value }));
    this.all.addEventListener("click", () => this.set({ all: !this.state.all }));
    for (const button of table.querySelectorAll("[data-sort]")) button.addEventListener("click", () => this.sortBy(button.dataset.sort));
    // What belongs to a configuration stands in the row below it, and goes where it goes.
    this.below = new Map(this.rows.map((row) => [row, row.nextElementSibling?.matches(".runs") ? row.nextElementSibling : null]));
    for (const button of table.querySelectorAll("[data-choose]")) button.addEventListener("click", () => this.choose(Number(button.dataset.choose)));
  }

  set(change) {
    Object.assign(this.state, change);
    this.show();
    keepInLink();
  }

  sortBy(what) {
    const first = what === "name" || (this.data.better < 0 && what !== "seeds") ? "+" : "-";
    const other = first === "+" ? "-" : "+";
    this.set({ sort: this.state.sort === first + what ? other + what : this.state.sort === other + what ? "" : first + what });
  }

  choose(place) {
    if (this.state.chosen === null) this.set({ chosen: place, versus: null });
    else if (this.state.chosen === place) this.set({ chosen: null, versus: null });
    else this.set({ versus: place });
  }

  show() {
    this.order();
    this.filter();
    this.against();
    this.dialog();
  }

  order() {
    const sort = this.state.sort, up = sort[0] === "+" ? 1 : -1, by = sort.slice(1);
    const value = (row) => (by === "name" ? row.dataset.name : by in row.dataset ? Number(row.dataset[by]) : null);
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      return up * (typeof x === "string" ? x.localeCompare(y) : x - y);
    };
    for (const body of this.table.tBodies) {
      const rows = this.rows.filter((row) => row.parentNode === body);
      for (const row of sort ? [...rows].sort(compare) : rows) body.append(...[row, this.below.get(row)].filter(Boolean));
    }
    for (const button of this.table.querySelectorAll("[data-sort]")) {
      if (button.dataset.sort === by) button.setAttribute("aria-sort", up > 0 ? "ascending" : "descending");
      else button.removeAttribute("aria-sort");
    }
  }

  filter() {
    const words = this.state.filter.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = [this.state.chosen, this.state.versus].map(String);
    let left = 0;
    for (const row of this.rows) {
      const below = this.below.get(row), text = (row.textContent + (below?.textContent ?? "")).toLowerCase();
      const fits = words.every((word) => text.includes(word));
      const folds = !words.length && !this.state.all && row.classList.contains("more") && !kept.includes(row.dataset.place);
      row.hidden = !fits || folds;
      if (below) below.hidden = row.hidden;
      left += !row.hidden;
    }
    if (this.input.value !== this.state.filter) this.input.value = this.state.filter;
    const more = this.rows.filter((row) => row.classList.contains("more")).length;
    this.all.hidden = !more || words.length > 0;
    this.all.textContent = this.state.all ? "fold" : `show ${more} more`;
    this.said.textContent = words.length ? `${left} of ${this.rows.length} rows` : "";
  }

  against() {
    const chosen = this.state.chosen, head = this.table.querySelector("th.against");
    head.hidden = chosen === null;
    if (chosen !== null) head.textContent = `less ${this.name(chosen)}, ${this.data.role}`;
    const verdicts = [];
    for (const row of this.rows) {
      const cell = row.querySelector("td.against"), place = Number(row.dataset.place);
      cell.hidden = chosen === null;
      row.classList.toggle("chosen", chosen !== null && place === chosen);
      const button = this.below.get(row)?.querySelector("[data-choose]");
      if (button) button.textContent = chosen === null ? "compare" : place === chosen ? "let go" : "versus";
      cell.replaceChildren();
      if (chosen === null || !button || place === chosen) continue;
      const found = this.difference(place, chosen);
      if (!found) cell.append(small(this.data.role in row.dataset ? "not on the same clips" : `no ${this.data.role} score`));
      else {
        const value = document.createElement("span");
        value.textContent = signed(found.value);
        value.className = found.verdict === "clear" ? "clear" : "";
        cell.append(value, small(`[${signed(found.low)}, ${signed(found.high)}]`), small(found.verdict));
        verdicts.push(found.verdict);
      }
    }
    const n = verdicts.filter((verdict) => verdict === "clear").length;
    if (n) head.append(small(`${n} of ${verdicts.length} clear: by chance 1 in 20 equal ones`));
  }

  // As readouts.results.significance: the reaches of clips and of seeds, added in quadrature.
  difference(a, b) {
    const [i, j] = [this.at.get(a), this.at.get(b)];
    if (i === undefined || j === undefined) return null;
    const cov = (p, q) => this.covariances[(Math.max(p, q) * (Math.max(p, q) + 1)) / 2 + Math.min(p, q)];
    const sides = [this.data.rows[i], this.data.rows[j]], trained = sides.filter((one) => !one.fitted);
    const clips = Math.max(0, cov(i, i) + cov(j, j) - 2 * cov(i, j));
    const freedom = trained.reduce((sum, one) => sum + one.n - 1, 0);
    const known = !trained.length || freedom > 0;
    const pooled = freedom ? trained.reduce((sum, one) => sum + one.squares, 0) / freedom : 0;
    const seeds = pooled * trained.reduce((sum, one) => sum + 1 / one.n, 0);
    const t = (degrees) => this.data.t[degrees - 1];
    const reach = Math.sqrt(t(this.data.clusters - 1) ** 2 * clips + (freedom ? t(freedom) ** 2 * seeds : 0));
    const value = sides[0].mean - sides[1].mean, clear = Math.abs(value) > reach;
    const [CLEAR, LUCK, ONE_SEED, SELECTED] = Object.keys(this.data.meaning);
    const verdict = this.data.role === "val" ? SELECTED : !clear ? LUCK : known ? CLEAR : ONE_SEED;
    return { value, low: value - reach, high: value + reach, verdict };
  }

  name(place) {
    const words = this.data.words[place];
    return words ? `${words.backbone} ${words.readout}` : "it";
  }

  dialog() {
    const { chosen, versus } = this.state, box = document.getElementById("versus");
    if (chosen === null || versus === null) return;
    const [a, b] = [versus, chosen], found = this.difference(a, b);
    const title = document.createElement("h3");
    title.textContent = `${this.name(a)} less ${this.name(b)}`;
    const said = document.createElement("p");
    said.textContent = found
      ? `${signed(found.value)} [${signed(found.low)}, ${signed(found.high)}] on ${this.data.role}, ${this.data.better > 0 ? "higher" : "lower"} is better: ${found.verdict}. ${this.data.meaning[found.verdict]} (${this.data.clusters} ${this.data.kind}, 95 %).`
      : `No difference: not both were scored on the same clips of ${this.data.role}, or one kept no statistics of single clips.`;
    const table = document.createElement("table"), words = [a, b].map((place) => this.data.words[place] || {});
    const line = (cells, tag = "td") => {
      const row = document.createElement("tr");
      row.append(...cells.map((text) => Object.assign(document.createElement(tag), { textContent: text })));
      table.append(row);
      return row;
    };
    line(["", this.name(a), this.name(b)], "th");
    const score = (place) => this.rows.find((row) => Number(row.dataset.place) === place).dataset[this.data.role];
    line([this.data.role, ...[a, b].map((place) => (score(place) === undefined ? "" : digits(Number(score(place)))))]);
    const names = [...new Set(words.flatMap(Object.keys))], differs = (name) => words[0][name] !== words[1][name];
    for (const name of names.filter(differs)) line([name, ...words.map((one) => one[name] ?? "")]);
    const same = names.filter((name) => !differs(name)).map((name) => `${name} ${words[0][name]}`);
    const close = Object.assign(document.createElement("button"), { type: "button", textContent: "close", autofocus: true });
    close.addEventListener("click", () => box.close());
    box.onclose = () => this.set({ versus: null });
    box.replaceChildren(title, said, table, small(`Both: ${same.join(", ")}`), close);
    if (!box.open) box.showModal();
  }
}

function floats(text) {
  return new Float32Array(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
}

function small(text) {
  return Object.assign(document.createElement("small"), { textContent: text });
}

function digits(value) {
  return Math.abs(value) < 10 ? value.toFixed(3) : value.toFixed(1);
}

function signed(value) {
  return (value < 0 ? "\u2212" : "+") + Number(Math.abs(value).toPrecision(2));
}

// What is sorted, filtered and chosen stands in the address: "#task-2?sort=-test&filter=linear&chosen=3".
function keepInLink() {
  const parts = new URLSearchParams();
  for (const [number, { state }] of tasks)
    for (const [name, value] of Object.entries(state))
      if (value !== null && value !== "" && value !== false) parts.set(`${name}.${number}`, value);
  const anchor = location.hash.slice(1).split("?")[0], text = parts.toString();
  history.replaceState(null, "", `#${anchor}${text ? "?" + text : ""}`);
}

function takeFromLink() {
  const [anchor, text] = location.hash.slice(1).split("?");
  for (const [key, value] of new URLSearchParams(text || "")) {
    const [name, number] = key.split("."), task = tasks.get(number);
    if (task && name in task.state) task.state[name] = ["chosen", "versus"].includes(name) ? Number(value) : name === "all" || value;
  }
  for (const task of tasks.values()) task.show();
  if (anchor) document.getElementById(anchor)?.scrollIntoView();
}

for (const table of document.querySelectorAll("table.rows")) tasks.set(table.dataset.task, new Task(table));
takeFromLink();
