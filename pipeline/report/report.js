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

/* The words of two texts in one list: [word, 0] in both, -1 in the old one alone, 1 in the new one. */
const wordDiff = (before, after) => {
  const old = before.split(/(?<=\s)(?=\S)/), now = after.split(/(?<=\s)(?=\S)/);
  let start = 0, end = 0;
  while (start < Math.min(old.length, now.length) && old[start].trim() === now[start].trim()) start++;
  while (end < Math.min(old.length, now.length) - start && old.at(-1 - end).trim() === now.at(-1 - end).trim()) end++;
  const a = old.slice(start, old.length - end), b = now.slice(start, now.length - end);
  const width = b.length + 1, common = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) for (let j = b.length - 1; j >= 0; j--) {
    common[i * width + j] = a[i].trim() === b[j].trim() ? common[(i + 1) * width + j + 1] + 1
      : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
  }
  const parts = now.slice(0, start).map((word) => [word, 0]);
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i].trim() === b[j].trim()) { parts.push([b[j++], 0]); i++; }
    else if (j === b.length || (i < a.length && common[(i + 1) * width + j] >= common[i * width + j + 1])) parts.push([a[i++], -1]);
    else parts.push([b[j++], 1]);
  }
  return parts.concat(now.slice(now.length - end).map((word) => [word, 0]));
};

/* The table of pairs: one page of rows at a time from an index; texts are unpacked when they are read. */
const PAGE = 50;
const unpack = async (source) => {
  const raw = atob(source.textContent), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).json();
};
const browse = ({ pairs, requests }) => {
  const sources = [...document.querySelectorAll(".chunk")], chunks = [];
  const chunk = (number) => chunks[number] ??= unpack(sources[number]);
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
  const long = (node) => { node.tabIndex = 0; return node; };  // a long text scrolls by keyboard
  const block = (cap, text, name) => add(el("div", name), el("div", "cap", cap), long(el("div", "text", text)));
  const changes = (cap, before, after) => {
    const box = el("div"), text = long(el("div", "text")), plain = el("button", "link", "hide changes");
    for (const [word, sign] of wordDiff(before, after)) {
      add(text, sign ? el(sign > 0 ? "ins" : "del", "", word) : document.createTextNode(word));
    }
    plain.type = "button";
    plain.addEventListener("click", () => {
      plain.textContent = text.classList.toggle("plain") ? "show changes" : "hide changes";
    });
    return add(box, add(el("div", "cap", cap + " "), plain), text);
  };
  const chainTitle = (chain, number, total) => chain.of
    ? `How the ${chain.of} text came about`
    : `What the supervised phase made of ${total > 1 ? `initial response ${number + 1}` : "the initial response"} to this prompt`;

  const chainView = (texts) => (chain, number, chains) => {
    const steps = add(el("div", "steps"), block("Initial response", texts[chain.initial]));
    let before = texts[chain.initial];
    for (const step of chain.steps) {
      const critique = texts[step.critique], now = texts[step.revision], kept = step.status === "ok";
      if (kept && now === before && !critique) {
        add(steps, el("div", "cap", `Round ${step.round} · ${step.principle} · unchanged`));
        continue;
      }
      const cap = `Revision ${step.round}${kept ? "" : " · " + step.status}`;
      add(steps, critique && block(`Critique ${step.round} · ${step.principle}`, critique),
        now === before ? el("div", "cap", `${cap} · unchanged`) : changes(critique ? cap : `${cap} · ${step.principle}`, before, now));
      if (kept) before = now;
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
  const details = async (open, row) => {
    const [number, place] = row.at, { texts, pairs: all } = await chunk(number), pair = { ...row, ...all[place] };
    const conversation = el("div");
    for (const [role, content] of pair.prompt) {
      add(conversation, block(role === "user" ? "Prompt" : role, texts[content]));
    }
    const names = pair.labeled ? ["Chosen", "Rejected"] : ["First response", "Second response"];
    const styles = pair.labeled ? ["chosen", "rejected"] : ["", ""];
    add(open, conversation, add(el("div", "two"), ...names.map((name, i) => block(name, texts[pair.texts[i]], styles[i]))));
    if (requests[pair.principle]) add(open, el("p", "ask", `Principle ${pair.principle}: ${requests[pair.principle]}`));
    if (pair.labeled) {
      add(open, verdictView(pair), el("div", "sub", `Margin ${fixed(pair.margin)} nats${pair.orders ? `, position gap ${fixed(pair.gap)}, the orders ${pair.agree ? "agree" : "disagree"}` : ""}.`));
      if (pair.parts.length) {
        const told = pair.parts.map(([name, value]) => `${name} ${value > 0 ? "+" : ""}${value.toFixed(3)}`);
        add(open, el("div", "sub", `Score of chosen minus rejected: ${told.join(", ")}.`));
      }
    }
    add(open, ...pair.chains.map(chainView(texts)));
    const sides = names.map((name, i) => pair.ids[i] && `${name.toLowerCase()} ${pair.ids[i]}`);
    const line = [pair.comparison, ...sides, pair.judgment && `judgment ${pair.judgment}`].filter(Boolean).join(" · ");
    return add(open, add(el("div", "ids"), el("div", "", line), el("div", "", `rlaif trace ${pair.id}`)));
  };
  const rowView = (pair) => {
    const box = el("div", "pair"), button = el("button");
    button.type = "button";
    button.setAttribute("aria-expanded", "false");
    add(button, pair.labeled ? meter(pair.label) : el("span", "tag", "no label"), el("span", "clip prompt", pair.head),
      el("span", "clip tag", pair.principle), el("span", "clip chip" + (pair.status === "ok" ? " ok" : ""), outcome(pair)), el("span", "turn", "›"));
    button.addEventListener("click", () => {
      const open = button.getAttribute("aria-expanded") === "true";
      button.setAttribute("aria-expanded", String(!open));
      if (open) return box.lastChild.remove();
      const inside = el("div", "inside");
      box.append(inside);
      details(inside, pair);
    });
    return add(box, button);
  };

  /* Each text is searched once, however many pairs share it. */
  const holders = async (wanted) => {
    const found = new Set(pairs.filter((pair) => pair.id.startsWith(wanted)));
    const all = await Promise.all(sources.map((_, number) => chunk(number)));
    const hits = all.map((one) => (one.lower ??= one.texts.map((text) => text.toLowerCase())).map((text) => text.includes(wanted)));
    for (const row of pairs) {
      const [number, place] = row.at, pair = all[number].pairs[place], hit = (i) => hits[number][i];
      if (pair.texts.some(hit) || pair.prompt.some(([, i]) => hit(i))
        || pair.chains.some((chain) => hit(chain.initial) || chain.steps.some((step) => hit(step.critique) || hit(step.revision)))) found.add(row);
    }
    return found;
  };
  const sorts = { high: (a, b) => (b.margin ?? -1) - (a.margin ?? -1), low: (a, b) => (a.margin ?? 99) - (b.margin ?? 99), gap: (a, b) => (b.gap ?? -1) - (a.gap ?? -1) };
  let found = [], shown = 0, latest = 0;
  const grow = () => {
    byId("list").append(...found.slice(shown, shown + PAGE).map(rowView));
    shown = Math.min(found.length, shown + PAGE);
    byId("more").hidden = shown >= found.length;
    byId("count").textContent = found.length ? `${shown.toLocaleString("en")} of ${found.length.toLocaleString("en")} shown` : "No pair fits these filters.";
  };
  const refresh = async () => {
    const turn = ++latest;
    const text = byId("find").value.trim().toLowerCase(), principle = byId("by-principle").value;
    const wanted = byId("by-outcome").value, order = byId("by-order").value, sort = sorts[byId("sort").value];
    if (text) byId("count").textContent = "Searching …";
    const holding = text ? await holders(text) : null;
    if (turn !== latest) return;
    found = pairs.filter((pair) => (!principle || pair.principle === principle) && (!wanted || outcome(pair) === wanted)
      && (!order || pair.agree === (order === "yes")) && (!holding || holding.has(pair)));
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
};
if (byId("data")) {
  unpack(byId("data")).then(browse, () => {
    byId("count").textContent = "This browser cannot unpack the pairs; one made since May 2023 can.";
  });
}
