// Pairs one after another: those that wait, or those of the last search.

import { get, post } from "./api.js";
import { Comparison } from "./comparison.js";
import { $, complain, el, meta, percent, preview, say, tell } from "./dom.js";

// Gives pairs the state that the service gives them by a decision: it is on contents, wherever they are.
function settle(items, decision, on, query, reference) {
  const isUndone = decision === "undo", pair = String([query, reference].sort());
  for (const item of items) {
    const both = [item.query.sha256, item.match.image?.sha256], state = item.state ?? "undecided";
    const isIt = both[1] === reference || (item.kind === "group" && both[0] === reference);
    if (on === "pair" ? String(both.sort()) === pair : isIt && state === (isUndone ? "never" : "undecided")) {
      item.state = isUndone ? "undecided" : WORDS[decision];
    }
  }
}

export const WORDS = { accept: "accepted", reject: "rejected", never: "never" };

// Scrolls the list alone: the page stays where it is.
function reveal(list, row) {
  const outer = list.getBoundingClientRect(), inner = row.getBoundingClientRect();
  list.scrollTop += Math.min(0, inner.top - outer.top) + Math.max(0, inner.bottom - outer.bottom);
  list.scrollLeft += Math.min(0, inner.left - outer.left) + Math.max(0, inner.right - outer.right);
}

export class Queue {
  constructor() {
    this.items = [];
    this.index = -1;
    this.done = [];
    this.next = null;
    this.isSearch = false;
    this.others = () => []; // pairs that are shown elsewhere on the page
    this.counting = 0;
    this.isBusy = false; // a decision is on its way
    this.turn = 0; // which list is shown: answers for an earlier one are dropped
    this.comparison = new Comparison($("comparison"), {
      accept: () => this.decide("accept"), reject: () => this.decide("reject"),
      never: () => this.decide("never"), skip: () => this.step(1), undo: () => this.undo(),
    });
    $("kind").addEventListener("change", () => this.load().catch((problem) => complain(problem.message)));
    $("find-groups").addEventListener("click", () => this.findGroups());
    $("least").addEventListener("input", () => this.filter());
    $("least").addEventListener("change", () => this.select(this.visible()[0] ?? -1));
  }

  path(after = "") {
    const kind = $("kind").value ? `&kind=${$("kind").value}` : "";
    return `/v1/matches?state=undecided&limit=100${kind}${after && `&after=${encodeURIComponent(after)}`}`;
  }

  async load() {
    const turn = ++this.turn;
    const page = await get(this.path());
    if (turn !== this.turn) return;
    this.isSearch = false;
    this.take(page.findings, page);
    if ($("kind").value) await get("/v1/matches?state=undecided&limit=1").then(({ n_all }) => this.count(n_all));
  }

  async findGroups() {
    const button = $("find-groups");
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true"); // and it keeps the focus
    tell("Looking for duplicates…");
    complain("");
    try {
      const found = await post(`/v1/collections/${encodeURIComponent($("collection").value)}/groups`, {});
      tell(this.told(found));
      if (this.isSearch) return; // somebody has gone on to the matches of a search
      $("kind").value = "group";
      await this.load();
      $("live").textContent = this.told(found);
    } catch (problem) {
      complain(problem.message);
    } finally {
      button.setAttribute("aria-disabled", "false");
    }
  }

  told({ n_groups, n_queued, n_left, is_complete, basis }) {
    if (!n_groups) return `No duplicates among ${basis.n_images.toLocaleString()} pictures.`;
    if (!n_queued) return "All duplicates that there are were judged before.";
    const rest = n_left ? `; ${n_left.toLocaleString()} more when these are judged` : "";
    return `${n_groups.toLocaleString()} ${n_groups === 1 ? "group" : "groups"}, ${n_queued.toLocaleString()} to judge${rest}${is_complete ? "" : "; of the most alike million pairs"}.`;
  }

  showSearch(findings, index) {
    this.turn += 1;
    this.isSearch = true;
    this.take(findings, null);
    this.select(index);
    $("queue-title").focus();
  }

  take(findings, page) {
    this.items = findings;
    this.next = page ? page.next : null;
    this.page = page;
    $("queue-title").textContent = this.isSearch ? `Matches of ${findings[0].query.name}` : "Queue";
    $("least").closest(".slider-field").hidden = $("queue-choice").hidden = this.isSearch;
    if (page && !$("kind").value) this.count(page.n_all);
    this.filter();
    this.select(this.visible()[0] ?? -1);
  }

  count(n) {
    $("queue-count").textContent = n;
    $("queue-count").hidden = !n;
  }

  // Asks what is left: a decision may settle pairs that are not listed here.
  async recount() {
    const { turn } = this, number = ++this.counting;
    try {
      const all = await get("/v1/matches?state=undecided&limit=1");
      const page = this.isSearch || !$("kind").value ? all : await get(this.path().replace("limit=100", "limit=1"));
      if (number !== this.counting) return;
      this.count(all.n_all);
      if (turn !== this.turn || !this.page) return;
      Object.assign(this.page, { counts: page.counts, sums: page.sums, n_all: page.n_all });
      this.tell();
    } catch {
      // the next decision asks again
    }
  }

  async more() {
    if (!this.next || this.isSearch) return;
    const { turn } = this;
    const page = await get(this.path(this.next));
    if (turn !== this.turn) return;
    const known = new Set(this.items.map((item) => item.id));
    this.next = page.next;
    this.items.push(...page.findings.filter((item) => !known.has(item.id)));
    this.list();
  }

  least() {
    const least = $("least").value / 100; // at 0 everything: a score may be below
    return this.isSearch || least === 0 ? -Infinity : least;
  }

  visible() {
    return this.items.flatMap((item, index) => (item.level >= this.least() ? [index] : []));
  }

  filter() {
    $("least-shown").textContent = `${$("least").value} %`;
    $("least").setAttribute("aria-valuetext", `${$("least").value} %`);
    this.tell();
    this.list();
  }

  tell() {
    if (this.page) {
      const from = Number($("least").value);
      const n = this.page.counts.slice(from).reduce((sum, value) => sum + value, 0);
      const sure = this.page.sums.slice(from).reduce((sum, value) => sum + value, 0);
      const part = percent(sure / n);
      const precise = n ? `, ${/[<>]/.test(part) ? "" : "about "}${part} of them copies` : "";
      $("live").textContent = `${n} of ${this.page.n_all} pairs${precise}`;
    }
  }

  list() {
    const visible = this.visible(), focused = document.activeElement?.closest("#list button")?.dataset.index;
    $("queue-empty").hidden = visible.length > 0;
    $("queue-work").hidden = visible.length === 0;
    $("none-left").textContent = this.items.length ? "None at this threshold." : "Nothing waits for you.";
    $("why-none").hidden = this.items.length > 0;
    $("list").replaceChildren(...visible.map((index) => this.row(index)));
    if (focused) $("list").querySelector(`[data-index="${focused}"]`)?.focus({ preventScroll: true });
  }

  row(index) {
    const { query, match, level, state, group } = this.items[index];
    const judged = state && state !== "undecided";
    const button = el("button", { type: "button", "aria-label": `${query.name} and ${match.reference}, ${percent(level)}${judged ? `, ${state}` : ""}` },
      el("span", { className: "pair" }, preview(query.picture, ""), preview(match.picture, "")),
      el("span", {}, el("b", {}, percent(level)), " ", judged ? el("span", { className: `verdict ${state}` }, state) : null,
        el("small", {}, match.reference, group ? ` · one of ${group.n_images} copies` : null)));
    button.dataset.index = index;
    if (index === this.index) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => this.select(index));
    return el("li", {}, button);
  }

  select(index) {
    this.index = index;
    for (const button of $("list").querySelectorAll("button")) {
      const isIt = Number(button.dataset.index) === index;
      if (!isIt) button.removeAttribute("aria-current");
      else {
        button.setAttribute("aria-current", "true");
        reveal($("list"), button);
      }
    }
    const item = this.items[index];
    if (!item) return;
    this.comparison.show(item);
    say(`${item.kind === "group" ? "Pair" : "Match"} ${index + 1} of ${this.items.length}: ${item.match.reference}, ${percent(item.level)}`);
    if (index > this.items.length - 10) this.more().catch((problem) => complain(problem.message));
  }

  step(by) {
    const visible = this.visible();
    const at = visible.indexOf(this.index);
    const to = visible[Math.min(visible.length - 1, Math.max(0, at + by))];
    if (to !== undefined && to !== this.index) this.select(to);
    else tell("There is nothing more.");
  }

  async decide(decision) {
    const item = this.items[this.index], state = item?.state ?? "undecided";
    if (!item) return;
    if (meta("may-decide") !== "yes") return tell("Your key may look, but not judge.");
    if (this.comparison.isLoading) return tell("The pictures are not there yet; nothing was decided.");
    if (!(await this.sent(item, { decision, state }))) return;
    complain("");
    this.mark(item, decision);
    this.done.push([item, decision, state]);
    if (this.items[this.index] === item) this.select(this.following(this.index)); // nobody went on
    say(`${item.match.reference}: ${WORDS[decision]}`);
    if (!this.visible().some((one) => this.isOpen(one))) tell("All of these are judged.");
  }

  // Sends one decision at a time: a second one would be about a pair that nobody has seen yet.
  async sent(item, decision) {
    if (this.isBusy) {
      tell("The decision before this one is still on its way; nothing was decided.");
      return false;
    }
    this.isBusy = true;
    try {
      await post("/v1/decisions", { match: item.id, ...decision });
      return true;
    } catch (problem) {
      complain(problem.message);
      if (problem.code === "conflict") await this.renew(item);
      return false;
    } finally {
      this.isBusy = false;
    }
  }

  // What somebody else decided meanwhile; own decisions before that are not undone any more.
  async renew(item) {
    this.done = this.done.filter(([one]) => one !== item);
    const found = await get(`/v1/matches/${item.id}`).catch(() => null);
    if (found) item.state = found.state;
    this.list();
    this.recount();
  }

  isOpen(index) {
    return (this.items[index].state ?? "undecided") === "undecided";
  }

  following(index) {
    const visible = this.visible();
    const rest = [...visible.filter((one) => one > index), ...visible.filter((one) => one < index)];
    return rest.find((one) => this.isOpen(one)) ?? index;
  }

  mark(item, decision, on = decision === "never" ? "reference" : "pair") {
    this.settle(decision, on, item.query.sha256, item.match.image?.sha256, item);
  }

  // What was undone in the list of decisions.
  undone({ query, reference }) {
    this.settle("undo", query ? "pair" : "reference", query, reference);
  }

  settle(decision, on, query, reference, ...items) {
    settle(new Set([...items, ...this.items, ...this.others()]), decision, on, query, reference);
    this.list();
    this.recount();
  }

  async undo() {
    const last = this.done.at(-1);
    if (!last) return tell("There is nothing to undo.");
    const [item, decision, before] = last;
    const on = decision === "never" ? "reference" : "pair";
    const earlier = on === "pair" ? Object.keys(WORDS).find((verb) => WORDS[verb] === before) : null;
    const again = earlier ? { decision: earlier } : { decision: "undo", on };
    if (!(await this.sent(item, { ...again, state: item.state }))) return;
    complain("");
    this.done = this.done.filter((one) => one !== last);
    this.mark(item, again.decision, on);
    if (this.items.includes(item)) this.select(this.items.indexOf(item));
    tell(`${item.match.reference}: ${earlier ? `${before} again` : "undone"}`);
  }
}
