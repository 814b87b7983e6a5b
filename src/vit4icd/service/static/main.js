// Starts the page: views by the address's hash, and the keys.

import { logOut } from "./api.js";
import { $, complain } from "./dom.js";
import { loadDecisions } from "./decided.js";
import { MODES } from "./comparison.js";
import { Queue } from "./queue.js";
import { Search } from "./search.js";

const queue = new Queue();
const search = new Search((findings, index) => {
  location.hash = "#match";
  show("queue", "search");
  queue.showSearch(findings, index);
}, () => queue.recount(), () => {
  location.hash = "#search";
  show("search");
});

queue.others = () => search.findings;

const VIEWS = {
  search: async () => search.draw(), queue: () => queue.load(), decisions: () => loadDecisions((one) => queue.undone(one)),
};

function show(view, current = view) {
  for (const name of Object.keys(VIEWS)) $(`view-${name}`).hidden = name !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

async function follow() {
  const name = location.hash.slice(1);
  const opened = !$("view-queue").hidden && queue.isSearch ? queue.index : -1;
  if (name === "match" && queue.isSearch) {
    queue.turn += 1; // a list that is on its way is not wanted any more
    show("queue", "search");
    return $("queue-title").focus();
  }
  const isView = Object.hasOwn(VIEWS, name), isOpen = Object.keys(VIEWS).some((one) => !$(`view-${one}`).hidden);
  if (name && name !== "match" && !isView && isOpen) return; // the skip link
  const view = isView ? name : "search";
  if ($(`view-${view}`).hidden) complain("");
  show(view);
  try {
    await VIEWS[view]();
    if (view === "search" && opened >= 0) search.focus(opened);
  } catch (problem) {
    complain(problem.message);
  }
}

const KEYS = {
  j: () => queue.step(1), k: () => queue.step(-1), s: () => queue.step(1), u: () => queue.undo(),
  a: () => queue.decide("accept"), r: () => queue.decide("reject"),
  "+": () => queue.comparison.zoomBy(1.4), "=": () => queue.comparison.zoomBy(1.4), "-": () => queue.comparison.zoomBy(1 / 1.4),
  0: () => queue.comparison.fit(), 1: () => queue.comparison.oneToOne(),
  ...Object.fromEntries(MODES.map(([mode, , key]) => [key, () => queue.comparison.setMode(mode)])),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("legend").open) return;
  if (event.target.matches("select, input:not([type=range]):not([type=checkbox])")) return;
  if (event.key === "?") return $("legend").showModal();
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if ($("view-queue").hidden || !$("with-keys").checked || !(key in KEYS)) return;
  event.preventDefault();
  if (!event.repeat || !"aru".includes(key)) KEYS[key](); // a held key judges one pair
});

// Who speaks to the computer, or hits keys by chance, does without them; this browser remembers it.
$("with-keys").checked = localStorage.getItem("keys") !== "off";
$("with-keys").addEventListener("change", ({ target }) => localStorage.setItem("keys", target.checked ? "on" : "off"));
$("legend-button").addEventListener("click", () => $("legend").showModal());
$("logout")?.addEventListener("click", () => logOut().catch((problem) => complain(problem.message)));
addEventListener("hashchange", follow);
follow();
queue.recount();
document.documentElement.dataset.ready = "yes";
