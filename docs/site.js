/* What axe-core asks of the theme: what scrolls takes the focus, and landmarks have names of their own. */
const mend = () => {
  document.querySelectorAll("pre > code, .md-typeset__scrollwrap").forEach((one) => { one.tabIndex = 0; });
  document.querySelectorAll(".md-code__nav").forEach((one, i) => one.setAttribute("aria-label", `Code block ${i + 1}`));
};
new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
mend();
