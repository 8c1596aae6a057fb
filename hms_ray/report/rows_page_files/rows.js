const { about, answers: file } = JSON.parse(document.getElementById("content").textContent);
const state = {
  row: null, sort: "loss", descending: true, class: about.all, votes: about.all, page: 0,
  span: about.spans_s[0], sensitivity: 10, high_pass: about.defaults.high_pass_hz,
  low_pass: about.defaults.low_pass_hz, notch: about.defaults.notch_hz,
};
const FILTERS = ["high_pass", "low_pass", "notch"];
let list = { rows: [], page: 0, pages: 1 };
let drawn = null; // what the canvases show, to draw it again
let requested = 0; // number of the last requested row
const kept = new Map();

const $ = (id) => document.getElementById(id);

function element(tag, text, properties = {}) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  return Object.assign(made, properties);
}

// An answer of the server, or of the file that this page is; the last ones are kept.
function ask(path, query = {}) {
  if (file) return Promise.resolve(path === "eeg" ? file.eeg[query.span] : file[path]);
  const address = `${path}?${new URLSearchParams(query)}`;
  if (!kept.has(address)) {
    kept.set(address, fetch(address).then((found) => found.json()).catch((error) => {
      kept.delete(address);
      return { problem: `The server does not answer: ${error.message}` };
    }));
    if (kept.size > 40) kept.delete(kept.keys().next().value);
  }
  return kept.get(address);
}

const rowQuery = (row) => ({ row });
const eegQuery = (row) => ({
  row, span: state.span, high_pass: state.high_pass, low_pass: state.low_pass,
  notch: state.notch, width: Math.round($("eeg").clientWidth * (window.devicePixelRatio || 1)),
});

async function showList(select) {
  const query = {
    sort: state.sort, descending: state.descending ? "1" : "0", class: state.class,
    votes: state.votes, page: state.page,
  };
  if (select === undefined && state.row) query.row = state.row;
  const found = await ask("list", query);
  if (found.problem) return tell(found.problem);
  list = found;
  state.page = list.page;
  $("rows").replaceChildren(...list.rows.map(listed));
  const last = list.first + list.rows.length - 1;
  $("place").textContent = list.total ? `${list.first}\u2013${last} of ${list.total.toLocaleString("en")}` : "no rows";
  $("previous-page").disabled = list.page === 0;
  $("next-page").disabled = list.page >= list.pages - 1;
  for (const head of document.querySelectorAll("#list th")) {
    if (head.dataset.sort !== state.sort) head.removeAttribute("aria-sort");
    else head.setAttribute("aria-sort", state.descending ? "descending" : "ascending");
  }
  highlight();
  if (select !== undefined && list.rows.length) go(list.rows.at(select).id);
}

function number(value, digits) {
  return value === null ? "\u2013" : value.toFixed(digits);
}

function listed(row) {
  const line = element("tr");
  line.dataset.row = row.id;
  const first = element("td");
  first.append(element("a", row.id, { href: `#${new URLSearchParams({ row: row.id })}` }));
  line.append(first, element("td", row.class));
  for (const text of [row.votes, number(row.loss, 3), number(row.disagreement, 3)]) {
    line.append(element("td", text, { className: "number" }));
  }
  line.addEventListener("click", () => go(row.id));
  return line;
}

function highlight() {
  for (const line of $("rows").children) {
    if (line.dataset.row === state.row) {
      line.setAttribute("aria-current", "true");
      line.scrollIntoView({ block: "nearest" });
    } else line.removeAttribute("aria-current");
  }
}

function go(row) {
  const hash = `#${new URLSearchParams({ row })}`;
  if (location.hash !== hash) location.hash = hash;
}

// The next row of the list, or the previous one, over the ends of its pages.
function step(by) {
  const at = list.rows.findIndex((row) => row.id === state.row);
  const next = at < 0 ? (by > 0 ? 0 : list.rows.length - 1) : at + by;
  if (next >= 0 && next < list.rows.length) return go(list.rows[next].id);
  turn(by, by > 0 ? 0 : -1);
}

function turn(by, select) {
  const page = list.page + by;
  if (page < 0 || page >= list.pages) return;
  state.page = page;
  showList(select);
}

function tell(problem) {
  $("problem").textContent = problem;
  $("row").hidden = Boolean(problem);
}

async function showRow() {
  const mine = ++requested, began = performance.now(), row = state.row;
  highlight();
  const [found, eeg, images] = await Promise.all([
    ask("row", rowQuery(row)), ask("eeg", eegQuery(row)), ask("spectrograms", rowQuery(row)),
  ]);
  if (mine !== requested) return; // another row was chosen meanwhile
  tell(found.problem || "");
  document.body.dataset.drawn = row;
  if (found.problem) return;
  drawn = { row: found, eeg: unpacked(eeg), images };
  describe(found);
  draw();
  document.body.dataset.milliseconds = Math.round(performance.now() - began);
  if (file) return;
  const at = list.rows.findIndex((one) => one.id === row);
  const next = at >= 0 && list.rows[at + 1];
  if (next) ["row", "spectrograms"].forEach((path) => ask(path, rowQuery(next.id)));
  if (next) ask("eeg", eegQuery(next.id));
}

function unpacked(eeg) {
  if (eeg.problem || eeg.values instanceof Float32Array) return eeg;
  eeg.values = new Float32Array(decoded(eeg.values).buffer);
  return eeg;
}

function opinion(shares, digits) {
  return about.classes
    .map((name, n) => [name, shares[n]])
    .filter(([, share]) => share >= (digits ? 0.05 : 1))
    .sort((one, other) => other[1] - one[1])
    .map(([name, share]) => `${name} ${share.toFixed(digits)}`)
    .join(", ");
}

function describe(row) {
  document.title = `Row ${row.id} of ${about.study}`;
  $("title").textContent = `Row ${row.id}`;
  const labels = row.n_labels === 1 ? "1 label row" : `${row.n_labels} label rows`;
  $("facts").textContent = `EEG ${row.eeg}, patient ${row.patient}, fold ${row.fold}, ${labels}, `
    + `window ${row.window_s[0]}\u2013${row.window_s[1]} s`;
  const lines = [["experts", opinion(row.vote_counts, 0)]];
  for (const model of row.models.slice(0, 1)) {
    lines.push([model.name, `${opinion(model.shares, 2)}; loss ${model.loss.toFixed(3)}`]);
  }
  $("opinions").replaceChildren(...lines.flatMap(([name, text], n) => [
    n ? " \u2003 " : "", element("b", name), ` ${text}`,
  ]));
  showShares(row);
  const others = row.same_eeg.filter((one) => one.id !== row.id);
  $("other-rows").replaceChildren();
  if (!others.length || file) return;
  $("other-rows").append("Other rows of this EEG: ");
  others.forEach((one, n) => $("other-rows").append(n ? ", " : "", element("a", one.id, {
    href: `#${new URLSearchParams({ row: one.id })}`,
  }), ` (${one.class}, ${one.votes} votes)`));
}

function showShares(row) {
  const head = element("tr");
  ["", ...about.classes, "loss"].forEach((name) => head.append(element("th", name, { scope: "col" })));
  const lines = [{ name: `experts, ${row.votes} votes`, shares: row.truth, experts: true }, ...row.models];
  $("shares").replaceChildren(head, ...lines.map((one) => {
    const line = element("tr", undefined, { className: one.experts ? "experts" : "" });
    line.append(element("th", one.name, { scope: "row" }));
    one.shares.forEach((share, n) => {
      const cell = element("td"), bar = element("span", undefined, { className: "share" });
      const length = element("i");
      length.style.width = `${100 * share}%`;
      const votes = one.experts ? ` (${row.vote_counts[n]})` : "";
      bar.append(length, element("span", share.toFixed(2) + votes));
      cell.append(bar);
      line.append(cell);
    });
    line.append(element("td", one.experts ? "" : one.loss.toFixed(3), { className: "number" }));
    return line;
  }));
}

function draw() {
  if (!drawn) return;
  const { row, eeg, images } = drawn;
  $("eeg-problem").textContent = eeg.problem || "";
  blank($("eeg"));
  $("eeg-caption").textContent = "";
  if (!eeg.problem) {
    const ekg = drawEeg($("eeg"), eeg, row, about.channels, about.groups, state.sensitivity);
    $("eeg-caption").textContent = `Negative up. ${state.sensitivity} \u00b5V/mm (EKG ${ekg}) on a screen of 96 dpi; `
      + `filters ${filterText()}, without delay. Dashed: the centre of the row's window. `
      + "Above: the ten seconds that experts judged, for each label row of this row.";
    $("eeg").setAttribute("aria-label", `EEG in bipolar montage, ${eeg.seconds} seconds from `
      + `${eeg.start_s} s of a recording of ${eeg.recording_s} s, ${about.channels.length} channels`);
  }
  const centre = (row.window_s[0] + row.window_s[1]) / 2;
  const minutes = [], seconds = [];
  if (!images.kaggle.problem) {
    const middle = (images.kaggle.start_s + images.kaggle.end_s) / 2;
    for (let n = -4; n <= 4; n += 2) minutes.push([middle + 60 * n, n > 0 ? `+${n}` : n]);
    minutes.unit = "minutes from the centre; line: the 50 s of the EEG";
    image("kaggle", images.kaggle, middle, [middle - 25, middle + 25], minutes);
  } else image("kaggle", images.kaggle);
  for (let n = -20; n <= 20; n += 10) seconds.push([centre + n, n > 0 ? `+${n}` : n]);
  seconds.unit = "seconds from the centre; line: its ten seconds";
  image("spectrum", images.eeg, centre, [centre - 5, centre + 5], seconds);
}

function image(id, found, ...others) {
  $(`${id}-problem`).textContent = found.problem || "";
  blank($(id));
  if (found.problem) return;
  if (!(found.cells instanceof Uint8Array)) found.cells = decoded(found.cells);
  drawSpectrogram($(id), found, ...others);
  $(id).setAttribute("aria-label", `Spectrogram of four chains, 0 to ${Math.round(found.max_hz)} Hz, ${found.unit}`);
}

function filterText() {
  const words = { high_pass: "from", low_pass: "to", notch: "without" };
  const used = FILTERS.filter((name) => state[name]).map((name) => `${words[name]} ${state[name]} Hz`);
  return used.length ? used.join(" ") : "off";
}

function options(id, values, text = (value) => value) {
  $(id).replaceChildren(...values.map((value) => element("option", text(value), { value })));
  $(id).value = state[id];
}

function choose(id, value, after) {
  state[id] = value;
  $(id).value = value;
  after();
}

const hertz = (value) => (value ? `${value} Hz` : "off");

function toggleFilters() {
  const off = FILTERS.every((name) => !state[name]);
  for (const name of FILTERS) {
    state[name] = off ? about.defaults[`${name}_hz`] : 0;
    $(name).value = state[name];
  }
  showRow();
}

function sensitise(by) {
  const at = SENSITIVITIES.indexOf(state.sensitivity) + by;
  if (at >= 0 && at < SENSITIVITIES.length) choose("sensitivity", SENSITIVITIES[at], draw);
}

const KEYS = {
  j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1),
  "]": () => turn(1, 0), "[": () => turn(-1, 0), f: toggleFilters,
  t: () => choose("span", about.spans_s.find((span) => span !== state.span), showRow),
  "+": () => sensitise(-1), "=": () => sensitise(-1), "-": () => sensitise(1),
};
const KEYS_OF_FILE = ["t", "+", "=", "-"];

function listen() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.tagName === "SELECT" || !KEYS[event.key]) return;
    if (file && !KEYS_OF_FILE.includes(event.key)) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  // After a choice with the mouse the keys are the page's again; a choice by keys keeps them.
  let isPointed = false;
  document.addEventListener("pointerdown", () => { isPointed = true; }, true);
  document.addEventListener("keydown", () => { isPointed = false; }, true);
  document.addEventListener("change", (event) => isPointed && event.target.blur());
  for (const id of ["class", "votes"]) {
    $(id).addEventListener("change", () => choose(id, $(id).value, () => {
      state.page = 0;
      showList(0);
    }));
  }
  for (const id of ["span", ...FILTERS]) {
    $(id).addEventListener("change", () => choose(id, Number($(id).value), showRow));
  }
  $("sensitivity").addEventListener("change", () => choose("sensitivity", Number($("sensitivity").value), draw));
  for (const head of document.querySelectorAll("#list th")) {
    head.firstElementChild.addEventListener("click", () => {
      const isSame = state.sort === head.dataset.sort;
      state.descending = isSame ? !state.descending : !["row", "class"].includes(head.dataset.sort);
      state.sort = head.dataset.sort;
      state.page = 0;
      showList(0);
    });
  }
  $("previous-page").addEventListener("click", () => turn(-1, 0));
  $("next-page").addEventListener("click", () => turn(1, 0));
  addEventListener("hashchange", fromAddress);
  addEventListener("resize", () => requestAnimationFrame(draw));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

async function fromAddress() {
  const wanted = new URLSearchParams(location.hash.slice(1)).get("row");
  if (!wanted) return showList(0);
  if (wanted === state.row) return;
  state.row = wanted;
  if (!list.rows.some((row) => row.id === wanted)) await showList();
  showRow();
}

function start() {
  document.body.classList.toggle("file", Boolean(file));
  $("study").textContent = about.study;
  $("shown").textContent = `${about.n_rows.toLocaleString("en")} rows`
    + (about.shown ? `, loss of ${about.shown}` : "");
  $("notes").replaceChildren(...about.notes.map((note) => element("li", note)));
  options("class", [about.all, ...about.classes]);
  options("votes", about.votes);
  options("span", about.spans_s, (value) => `${value} s`);
  options("sensitivity", SENSITIVITIES, (value) => `${value} \u00b5V/mm`);
  for (const name of FILTERS) options(name, about.filters[name], hertz);
  listen();
  if (!file) return fromAddress();
  document.querySelector("main").append($("keys"));
  state.row = file.row.id;
  $("fixed-filters").textContent = `filters ${filterText()}`;
  showRow();
}

start();
