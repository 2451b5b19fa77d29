"use strict";
/* Foreign text reaches the page through textContent alone. */
const byId = (id) => document.getElementById(id);
const el = (tag, name, text) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
};
const token = location.hash.slice(1);
let reviewer = "", pair = null, shownAt = 0, busy = false;

byId("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

const ask = async (path, body) => {
  let response;
  try {
    response = await fetch(path, { method: "POST", headers: { "X-Review-Token": token }, body: JSON.stringify(body) });
  } catch {
    throw new Error("The server does not answer; start `rlaif review` again. Nothing that was saved is lost.");
  }
  const value = await response.json();
  if (!response.ok) throw new Error(value.error);
  return value;
};
const tell = (problem) => { byId("problem").hidden = !problem; byId("problem").textContent = problem; };

const TURNS = { user: "Prompt", assistant: "Earlier reply", system: "System message" };
const show = (state) => {
  pair = state.pair;
  shownAt = performance.now();
  byId("progress").textContent = `${state.done} done, ${state.left} left`;
  byId("begin").hidden = true;
  byId("pair").hidden = byId("choices").hidden = !pair;
  byId("undo").hidden = !state.can_undo;
  byId("answers").hidden = !pair && !state.can_undo;
  byId("question").textContent = !pair ? "Every pair is labeled. Thank you." : pair.question || "Which response is better?";
  if (pair) {
    byId("prompt").replaceChildren(...pair.prompt.flatMap((turn) => [el("h2", "cap", TURNS[turn.role] ?? turn.role), el("div", "text", turn.content)]));
    byId("left").textContent = pair.left;
    byId("right").textContent = pair.right;
  }
  scrollTo(0, 0);
  byId("question").focus({ preventScroll: true });
  figures();
};

let asking = false;
const figures = async () => {
  if (asking) return;
  asking = true;
  try {
    const rows = await ask("/figures", {});
    byId("figures").hidden = !rows.length;
    byId("rows").replaceChildren(...rows.map((row) => {
      const line = el("tr"), [kappa, low, high] = row.kappa.map((value) => value === null ? "–" : value.toFixed(2));
      const share = row.equal === null ? "–" : `${Math.round(100 * row.equal)} %`;
      line.append(...[row.title, row.pairs, kappa, `${low} to ${high}`, share].map((text) => el("td", "", text)));
      return line;
    }));
  } catch { /* the next answer says what is wrong */ }
  asking = false;
};

const work = async (path, body) => {
  if (busy) return;
  busy = true;
  try {
    show(await ask(path, { reviewer, ...body }));
    tell("");
  } catch (error) {
    tell(error.message);
  }
  busy = false;
};
const answer = (value) => {
  if (pair) work("/label", { pair: pair.id, answer: value, seconds: (performance.now() - shownAt) / 1000 });
};

const undo = () => { if (!byId("undo").hidden) work("/undo", {}); };

/* Not the arrow down, which scrolls: no label by accident. */
const KEYS = { 1: "left", ArrowLeft: "left", 2: "tie", 3: "right", ArrowRight: "right" };
document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, .scroll")) return;  // letters are text there, and arrows scroll
  if (event.key === "u" || event.key === "Backspace") return undo();
  if (!pair || !(event.key in KEYS)) return;
  event.preventDefault();
  answer(KEYS[event.key]);
});
for (const button of document.querySelectorAll("[data-answer]")) {
  button.addEventListener("click", () => answer(button.dataset.answer));
}
byId("undo").addEventListener("click", undo);
byId("begin").addEventListener("submit", (event) => {
  event.preventDefault();
  reviewer = byId("name").value;
  work("/next", {});
});
if (!token) tell("Open the whole address that `rlaif review` printed: its end is the key.");
