// The decisions in force, newest first, each of which can be undone.

import { get, post } from "./api.js";
import { $, complain, el, meta, preview, say } from "./dom.js";
import { WORDS } from "./queue.js";

const NOTHING = {
  negatives: "Nothing is on this list. It is for logos and templates that are in many pictures.",
  decided: "Nobody has judged a pair yet.",
};

export async function loadDecisions(onUndone) {
  const lists = [["negatives", "reference"], ["decided", "pair"]];
  const pages = await Promise.all(lists.map(([, on]) => page(on)));
  lists.forEach(([id, on], at) => {
    $(id).replaceChildren(...rows(pages[at], on, onUndone));
    explain($(id));
  });
}

const page = (on, after = 0) => get(`/v1/decisions?order=newest&on=${on}&limit=200&after=${after}`);

function rows({ decisions, next }, on, onUndone) {
  return [...decisions.map((decision) => row(decision, onUndone)), ...(next ? [more(next, on, onUndone)] : [])];
}

function explain(list) {
  if (!list.children.length) list.append(el("li", { className: "nothing" }, NOTHING[list.id]));
}

function more(after, on, onUndone) {
  const button = el("button", { type: "button" }, "More");
  const last = el("li", { className: "nothing" }, button);
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const found = rows(await page(on, after), on, onUndone);
      last.replaceWith(...found);
      (found[0]?.querySelector("button") ?? $("decisions-title")).focus();
    } catch (problem) {
      button.disabled = false;
      complain(problem.message);
    }
  });
  return last;
}

function row(decision, onUndone) {
  const { fields } = decision;
  const known = fields.reference_id ?? decision.reference.slice(0, 12);
  const pictures = decision.query ? [preview(fields.query_picture, "query")] : [];
  const undo = el("button", { type: "button", disabled: meta("may-decide") !== "yes", "aria-label": `Undo: ${known}` }, "Undo");
  const made = el("li", {},
    el("span", { className: decision.query ? "pair" : "pair one" }, ...pictures, preview(fields.reference_picture, "reference")),
    el("span", { className: `verdict ${decision.decision}` }, decision.decision),
    el("span", { className: "who" }, decision.query ? `${fields.query_name ?? "query"} → ${known}` : known,
      el("small", {}, new Date(decision.at).toLocaleString())),
    undo);
  undo.addEventListener("click", async () => {
    const on = decision.query ? "pair" : "reference";
    try {
      await post("/v1/decisions", { decision: "undo", query: decision.query, reference: decision.reference, on, state: WORDS[decision.decision] });
      complain("");
      leave(made);
      onUndone(decision);
      say(`${known}: undone`);
    } catch (problem) {
      complain(problem.message);
    }
  });
  return made;
}

// Takes a row away; the next one has the focus then.
function leave(made) {
  const list = made.parentElement, next = made.nextElementSibling ?? made.previousElementSibling;
  made.remove();
  if (!list) return; // drawn anew meanwhile
  explain(list);
  (next?.querySelector("button") ?? $("decisions-title")).focus();
}
