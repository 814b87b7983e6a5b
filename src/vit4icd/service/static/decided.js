// The decisions in force, newest first, each of which can be undone.

import { get, post } from "./api.js";
import { $, complain, el, meta, preview, say } from "./dom.js";

export async function loadDecisions() {
  const [never, pairs] = await Promise.all(["reference&limit=1000", "pair&limit=200"].map(
    (which) => get(`/v1/decisions?order=newest&on=${which}`).then(({ decisions }) => decisions)));
  fill($("negatives"), never, "Nothing is on this list. It is for logos and templates that are in many pictures.");
  fill($("decided"), pairs, "Nobody has judged a pair yet.");
}

function fill(list, decisions, nothing) {
  const rows = decisions.map(row);
  list.replaceChildren(...(rows.length ? rows : [el("li", { className: "nothing" }, nothing)]));
}

function row(decision) {
  const { fields } = decision;
  const known = fields.reference_id ?? decision.reference.slice(0, 12);
  const pictures = decision.query ? [preview(fields.query_picture, "query")] : [];
  const undo = el("button", { type: "button", disabled: meta("may-decide") !== "yes", "aria-label": `Undo: ${known}` }, "Undo");
  undo.addEventListener("click", async () => {
    const on = decision.query ? "pair" : "reference";
    try {
      await post("/v1/decisions", { decision: "undo", query: decision.query, reference: decision.reference, on });
      await loadDecisions();
      say(`${known}: undone`);
    } catch (problem) {
      complain(problem.message);
    }
  });
  return el("li", {},
    el("span", { className: decision.query ? "pair" : "pair one" }, ...pictures, preview(fields.reference_picture, "reference")),
    el("span", { className: `verdict ${decision.decision}` }, decision.decision),
    el("span", { className: "who" }, decision.query ? `${fields.query_name ?? "query"} → ${known}` : known,
      el("small", {}, new Date(decision.at).toLocaleString())),
    undo);
}
