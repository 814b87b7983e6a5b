// A picture dropped, pasted or chosen, and its matches as cards.

import { get, post } from "./api.js";
import { $, complain, decimal, el, meta, percent, preview, say, share, views } from "./dom.js";

export class Search {
  constructor(open, onKept, onBegin) {
    this.open = open;
    this.onKept = onKept;
    this.onBegin = onBegin;
    this.findings = [];
    this.number = 0;
    $("file").addEventListener("change", (event) => {
      this.run(event.target.files[0]);
      event.target.value = "";
    });
    this.listenToDrops();
    document.addEventListener("paste", (event) => {
      const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
      if (file) this.run(file);
    });
    $("collection").addEventListener("change", () => {
      this.count();
      this.findings = [];
      $("result").hidden = true; // it is of another collection
    });
    this.count();
  }

  listenToDrops() {
    const drop = $("drop");
    for (const name of ["dragenter", "dragover"]) {
      document.addEventListener(name, (event) => {
        event.preventDefault();
        drop.classList.add("over");
      });
    }
    for (const name of ["dragleave", "drop"]) {
      document.addEventListener(name, (event) => {
        event.preventDefault();
        if (name === "drop" || !event.relatedTarget) drop.classList.remove("over");
      });
    }
    document.addEventListener("drop", (event) => this.run(event.dataTransfer.files[0]));
  }

  async count() {
    const { collections } = await get("/v1/collections").catch(() => ({ collections: [] }));
    const one = collections.find((known) => known.collection === $("collection").value);
    if (one) $("n-images").textContent = `${one.n_images.toLocaleString()} pictures in ${one.collection}`;
  }

  async run(file) {
    if (!file) return;
    this.onBegin();
    complain("");
    if (file.size > Number(meta("max-bytes"))) {
      return complain(`This file has ${Math.ceil(file.size / 2 ** 20)} MiB; ${meta("max-bytes") / 2 ** 20} are the most.`);
    }
    const form = new FormData();
    form.append("image", file, file.name || "pasted picture");
    const options = ["verify", "flip", "rotate", "regions"].map((name) => `${name}=${$(name).checked}`).join("&");
    const number = ++this.number;
    say("Searching…");
    $("view-search").setAttribute("aria-busy", "true");
    $("drop").classList.add("busy");
    try {
      const path = `/v1/collections/${encodeURIComponent($("collection").value)}/search?review=true&${options}`;
      const answer = await post(path, form);
      if (number === this.number) this.show(answer, file);
      this.onKept();
    } catch (problem) {
      if (number !== this.number) return;
      $("result").hidden = true;
      complain(problem.message);
    } finally {
      if (number === this.number) {
        $("drop").classList.remove("busy");
        $("view-search").setAttribute("aria-busy", "false");
      }
    }
  }

  show(answer, file) {
    const { query, matches } = answer;
    this.findings = matches.map((match) => ({
      id: match.id, state: match.state, level: match.probability ?? match.score, query, match, collection: answer.basis.collection,
    }));
    $("view-search").classList.add("compact");
    $("result").hidden = false;
    URL.revokeObjectURL($("query-image").src);
    this.picture(file, query);
    $("query-image").alt = "The picture that was searched";
    $("query-name").textContent = query.name;
    $("query-size").textContent = query.width ? `${query.width} × ${query.height}` : "";
    const n = matches.length;
    $("result-title").textContent = n === 0 ? "No copy was found" : n === 1 ? "One match" : `${n} matches`;
    $("result-note").textContent = this.note(answer);
    this.draw();
    say(`${$("result-title").textContent}. ${$("result-note").textContent}`);
  }

  focus(index) {
    $("cards").querySelectorAll(".card")[index]?.focus();
  }

  draw() {
    $("cards").replaceChildren(...this.findings.map((finding, index) => this.card(finding, index)));
  }

  // The file itself; of a kind that browsers do not show, the preview that the service made.
  picture(file, query) {
    const image = $("query-image");
    image.hidden = false;
    image.onerror = () => {
      image.onerror = null;
      if (query.picture) image.src = `/v1/images/${query.picture}/thumbnail?size=full`;
      else image.hidden = true;
    };
    image.src = URL.createObjectURL(file);
  }

  note({ matches, nearest, n_rejected, n_never, basis }) {
    const parts = [];
    if (!matches.length && nearest && !n_rejected && !n_never) {
      parts.push(`The nearest of ${basis.n_images.toLocaleString()} is ${nearest.reference}, ${percent(nearest.probability)} probable.`);
    }
    if (n_rejected) parts.push(`${n_rejected} held back: rejected before.`);
    if (n_never) parts.push(`${n_never} held back: must never match.`);
    return parts.join(" ");
  }

  card(finding, index) {
    const { query, match, state } = finding, foundAs = views(match, "query", "reference");
    const size = match.image ? `${match.image.width} × ${match.image.height}` : "";
    const common = match.overlap
      ? `${share(match.overlap.query_share)} of the query is ${share(match.overlap.reference_share)} of the reference` : "not proven";
    const path = match.image?.source && match.image.source !== match.reference ? match.image.source : null;
    const judged = state && state !== "undecided";
    const card = el("button", { className: "card", type: "button" },
      el("span", { className: "pair" }, preview(query.picture, "query"), preview(match.picture, "reference")),
      el("span", { className: "facts" },
        el("span", { className: "line" }, el("span", { className: "big" }, percent(match.probability)),
          el("span", { className: `verdict ${match.verdict}` }, match.verdict),
          judged ? el("span", { className: `verdict ${state}` }, state) : null,
          el("span", { className: "quiet small" }, `score ${decimal(match.score)}`)),
        el("span", { className: "name" }, match.reference),
        el("span", { className: "quiet small" }, [size, common].filter(Boolean).join(" · ")),
        foundAs ? el("span", { className: "quiet small" }, foundAs) : null,
        path ? el("span", { className: "quiet small path" }, path) : null));
    card.addEventListener("click", () => this.open(this.findings, index));
    return el("li", {}, card);
  }
}
