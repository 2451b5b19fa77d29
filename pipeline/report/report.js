"use strict";
/* Foreign text reaches the page through textContent alone: nothing here builds HTML from strings. */
const byId = (id) => document.getElementById(id);
const el = (tag, name, text) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
};
const add = (parent, ...children) => { parent.append(...children.filter(Boolean)); return parent; };

byId("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

/* Read-out under the pointer in line charts. */
for (const svg of document.querySelectorAll("svg[data-chart]")) {
  const chart = JSON.parse(svg.dataset.chart), [left, right, top, bottom] = chart.plot;
  const tip = el("div", "tip"), width = svg.viewBox.baseVal.width;
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  line.setAttribute("class", "cursor"); line.setAttribute("y1", top); line.setAttribute("y2", bottom);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), [low, high] = chart.range;
    const x = low + ((event.clientX - box.left) * width / box.width - left) / (right - left) * (high - low);
    let best = 0;
    chart.x.forEach((value, i) => { if (Math.abs(value - x) < Math.abs(chart.x[best] - x)) best = i; });
    const at = left + (chart.x[best] - low) / (high - low) * (right - left);
    line.setAttribute("x1", at); line.setAttribute("x2", at);
    tip.textContent = `${chart.name} ${chart.x[best]}: ` + chart.lines.map(([name, ys]) => `${name} ${ys[best]}`).join(", ");
    svg.append(line); svg.parentNode.append(tip);
    tip.style.left = Math.max(0, Math.min(at / width * box.width - tip.offsetWidth / 2, box.width - tip.offsetWidth)) + "px";
  });
  svg.addEventListener("pointerleave", () => { line.remove(); tip.remove(); });
}

/* The table of pairs. */
const PAGE = 25;
const source = byId("data");
if (source) {
  const { pairs, requests } = JSON.parse(source.textContent);
  const outcome = (pair) => pair.status === "ok" ? "kept" : pair.reason || pair.status;
  const fixed = (value) => value.toFixed(2);
  const fill = (id, values) => {
    for (const value of [...new Set(values)].filter(Boolean).sort()) {
      const option = el("option", "", value);
      option.value = value;
      byId(id).append(option);
    }
  };
  fill("by-principle", pairs.map((pair) => pair.principle));
  fill("by-outcome", pairs.map(outcome));

  const meter = (share) => {
    const bar = el("span", "fill"), box = el("span", "meter");
    bar.style.width = 100 * share + "%";
    return add(box, add(el("span", "track"), bar), el("span", "", fixed(share)));
  };
  const block = (cap, text, name) => add(el("div", name), el("div", "cap", cap), el("div", "text", text));
  const chainTitle = (chain, number, total) => chain.of
    ? `How the ${chain.of} text came about`
    : `What the supervised phase made of ${total > 1 ? `initial response ${number + 1}` : "the initial response"} to this prompt`;

  const chainView = (chain, number, chains) => {
    const steps = add(el("div", "steps"), block("Initial response", chain.initial));
    for (const step of chain.steps) {
      add(steps, block(`Critique ${step.round} · ${step.principle}`, step.critique),
        block(`Revision ${step.round}${step.status === "ok" ? "" : " · " + step.status}`, step.revision));
    }
    return add(el("div"), el("div", "cap", chainTitle(chain, number, chains.length)), steps);
  };
  const verdictView = (pair) => {
    const view = el("div", "verdicts");
    const one = (cap, share) => add(view, add(el("div"), el("div", "cap", cap), meter(share)));
    one("Soft label: P(chosen is better)", pair.label);
    if (pair.orders) {
      one("with chosen in slot A", pair.orders[0]);
      one("with chosen in slot B", pair.orders[1]);
    }
    return view;
  };
  const details = (pair) => {
    const open = el("div", "inside");
    const conversation = el("div");
    for (const turn of pair.prompt) {
      add(conversation, block(turn.role === "user" ? "Prompt" : turn.role, turn.content));
    }
    const names = pair.labeled ? ["Chosen", "Rejected"] : ["First response", "Second response"];
    const styles = pair.labeled ? ["chosen", "rejected"] : ["", ""];
    add(open, conversation, add(el("div", "two"), ...names.map((name, i) => block(name, pair.texts[i], styles[i]))));
    if (requests[pair.principle]) add(open, el("p", "ask", `Principle ${pair.principle}: ${requests[pair.principle]}`));
    if (pair.labeled) {
      add(open, verdictView(pair), el("div", "sub", `Margin ${fixed(pair.margin)} nats${pair.orders ? `, position gap ${fixed(pair.gap)}, the orders ${pair.agree ? "agree" : "disagree"}` : ""}.`));
      if (pair.parts.length) {
        const told = pair.parts.map(([name, value]) => `${name} ${value > 0 ? "+" : ""}${value.toFixed(3)}`);
        add(open, el("div", "sub", `Score of chosen minus rejected: ${told.join(", ")}.`));
      }
    }
    add(open, ...pair.chains.map(chainView));
    return add(open, el("div", "ids", `rlaif trace ${pair.id}`));
  };
  const rowView = (pair) => {
    const box = el("div", "pair"), button = el("button");
    const last = pair.prompt.length ? pair.prompt[pair.prompt.length - 1].content : "";
    button.type = "button";
    button.setAttribute("aria-expanded", "false");
    add(button, pair.labeled ? meter(pair.label) : el("span", "tag", "no label"), el("span", "clip prompt", last),
      el("span", "clip tag", pair.principle), el("span", "clip chip" + (pair.status === "ok" ? " ok" : ""), outcome(pair)), el("span", "turn", "›"));
    button.addEventListener("click", () => {
      const open = button.getAttribute("aria-expanded") === "true";
      button.setAttribute("aria-expanded", String(!open));
      if (open) box.lastChild.remove(); else box.append(details(pair));
    });
    return add(box, button);
  };

  const words = new Map();
  const haystack = (pair) => {
    if (!words.has(pair)) {
      const chains = pair.chains.flatMap((chain) => [chain.initial, ...chain.steps.flatMap((s) => [s.critique, s.revision])]);
      words.set(pair, [pair.id, ...pair.prompt.map((turn) => turn.content), ...pair.texts, ...chains].join("\n").toLowerCase());
    }
    return words.get(pair);
  };
  const sorts = { high: (a, b) => (b.margin ?? -1) - (a.margin ?? -1), low: (a, b) => (a.margin ?? 99) - (b.margin ?? 99), gap: (a, b) => (b.gap ?? -1) - (a.gap ?? -1) };
  let found = [], shown = 0;
  const grow = () => {
    byId("list").append(...found.slice(shown, shown + PAGE).map(rowView));
    shown = Math.min(found.length, shown + PAGE);
    byId("more").hidden = shown >= found.length;
    byId("count").textContent = found.length ? `${shown} of ${found.length} shown` : "No pair fits these filters.";
  };
  const refresh = () => {
    const text = byId("find").value.trim().toLowerCase(), principle = byId("by-principle").value;
    const wanted = byId("by-outcome").value, order = byId("by-order").value, sort = sorts[byId("sort").value];
    found = pairs.filter((pair) => (!principle || pair.principle === principle) && (!wanted || outcome(pair) === wanted)
      && (!order || pair.agree === (order === "yes")) && (!text || haystack(pair).includes(text)));
    if (sort) found.sort(sort);
    shown = 0;
    byId("list").replaceChildren();
    grow();
  };
  let timer;
  byId("find").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(refresh, 120); });
  for (const id of ["by-principle", "by-outcome", "by-order", "sort"]) byId(id).addEventListener("change", refresh);
  byId("more").addEventListener("click", grow);
  refresh();
}
