// Two pictures looked at together: side by side, or the reference laid where it lies in the query.

import { get } from "./api.js";
import { $, decimal, el, meta, percent, share, svg, views } from "./dom.js";
import { css, diagonal, enlargement, invert, multiply, project } from "./geometry.js";

export const MODES = [
  ["both", "Side by side", "b"], ["slider", "Slider", "l"], ["flicker", "Flicker", "f"],
  ["difference", "Difference", "d"], ["overlay", "Overlay", "o"],
];
const NOT_PROVEN = { none: "not proven", asked: "being looked for…", failed: "could not be asked" };
const FLICKER_MS = 650; // well below three flashes a second
const LARGEST = 24;

function plane(...children) {
  return el("div", { className: "plane" }, ...children);
}

const capital = (word) => word[0].toUpperCase() + word.slice(1);

function outline(corners, width, height) {
  const points = corners.map(([x, y]) => `${x * width},${y * height}`).join(" ");
  return svg("svg", { width, height, "aria-hidden": "true" },
    svg("polygon", { points, class: "under" }), svg("polygon", { points }));
}

export class Comparison {
  constructor(root, acts) {
    this.acts = acts;
    this.mode = "both";
    this.slide = 0.5;
    this.opacity = 0.7;
    this.view = { zoom: 1, x: 0.5, y: 0.5 };
    this.number = 0;
    root.append(this.build());
    new ResizeObserver(() => this.draw()).observe(this.stage);
  }

  build() {
    this.buttons = MODES.map(([mode, label, key]) => {
      const button = el("button", { type: "button", "aria-pressed": String(mode === this.mode), title: `${label} (${key})` }, label);
      button.dataset.mode = mode;
      button.addEventListener("click", () => this.setMode(mode));
      return button;
    });
    const zoom = (label, text, act) => {
      const button = el("button", { type: "button", "aria-label": label, title: label }, text);
      button.addEventListener("click", act);
      return button;
    };
    this.shown = el("span", { className: "small quiet" }, "fit");
    this.knob = el("input", { type: "range", min: 0, max: 100, value: 50, id: "knob" });
    this.knob.addEventListener("input", () => this.turn(this.knob.value / 100));
    this.knobLabel = el("label", { htmlFor: "knob" });
    this.knobRow = el("div", { className: "knob", hidden: true }, this.knobLabel, this.knob);
    this.note = el("p", { className: "knob", hidden: true });
    this.stage = el("div", { className: "stage two", tabIndex: 0, role: "group",
      "aria-label": "The two pictures; arrow keys move, plus and minus zoom" });
    this.facts = el("dl", { className: "facts-list" });
    this.element = el("article", { className: "compare panel", "aria-label": "Comparison" },
      el("div", { className: "tools" },
        el("div", { className: "segments", role: "group", "aria-label": "How to compare" }, ...this.buttons),
        el("div", { className: "end", role: "group", "aria-label": "Zoom" },
          this.shown, zoom("Smaller (−)", "−", () => this.zoomBy(1 / 1.4)), zoom("Larger (+)", "+", () => this.zoomBy(1.4)),
          zoom("Fit (0)", "Fit", () => this.fit()), zoom("One to one, pixels as they are shown (1)", "1:1", () => this.oneToOne()))),
      this.knobRow, this.note, this.stage,
      el("div", { className: "below" }, this.decide(), this.facts));
    this.listen();
    return this.element;
  }

  decide() {
    const button = (name, text, key) => {
      const made = el("button", { type: "button", className: name, disabled: meta("may-decide") !== "yes" && name !== "skip" },
        text, " ", key ? el("kbd", {}, key) : null);
      made.dataset.act = name;
      made.addEventListener("click", (event) => { if (event.detail < 2) this.acts[name](); }); // a double click judges one pair
      return made;
    };
    return el("div", { className: "acts", role: "group", "aria-label": "Judge" },
      button("accept", "Accept", "a"), button("reject", "Reject", "r"), button("skip", "Skip", "s"),
      button("undo", "Undo", "u"), button("never", "Never match this reference", ""));
  }

  async show(finding) {
    const number = ++this.number;
    this.finding = finding;
    this.overlap = finding.match.overlap;
    this.query = this.reference = null;
    this.isLoading = true;
    this.proof = "none";
    this.describe();
    this.stage.replaceChildren();
    this.note.hidden = true;
    const load = (picture, alt) => {
      const image = el("img", { alt, draggable: false, src: `/v1/images/${picture}/thumbnail?size=full` });
      return image.decode().then(() => image, () => fetch(image.src).then(({ status }) => status === 404 ? null : "lost", () => "lost"));
    };
    const [one, other] = this.sides();
    const [query, reference] = await Promise.all([
      load(finding.query.picture, `${one} ${finding.query.name}`), load(finding.match.picture, `${other} ${finding.match.reference}`)]);
    if (number !== this.number) return;
    if (query === "lost" || reference === "lost") return this.offerAgain(finding);
    [this.query, this.reference, this.isLoading] = [query, reference, false];
    this.describe();
    this.view = { zoom: 1, x: 0.5, y: 0.5 };
    if (!this.overlap && !finding.match.verified && query && reference) this.prove(finding, number);
    this.arrange();
  }

  offerAgain(finding) {
    const again = el("button", { type: "button" }, "Try again");
    again.addEventListener("click", () => this.show(finding));
    this.note.replaceChildren(el("span", {}, "The pictures could not be loaded."), again);
    this.note.hidden = false;
  }

  // The pictures are there to be looked at meanwhile.
  async prove(finding, number) {
    this.proof = "asked";
    this.describe();
    const found = await get(`/v1/matches/${finding.id}/proof`).catch(() => null);
    if (number !== this.number) return;
    this.proof = found ? "none" : "failed";
    this.overlap = found ? found.overlap : null;
    this.describe();
    this.arrange();
  }

  describe() {
    const { match, query } = this.finding;
    const fact = (name, value, wide) => value === null ? [] : [el("div", { className: wide ? "wide" : "" },
      el("dt", {}, name), el("dd", {}, value))];
    const verdict = el("span", { className: `verdict ${match.verdict}` }, match.verdict);
    const size = (picture, shown) => {
      if (!picture?.width) return "";
      const less = shown && Math.max(shown.naturalWidth, shown.naturalHeight) < Math.max(picture.width, picture.height);
      return ` · ${picture.width} × ${picture.height}${less ? `, shown at ${shown.naturalWidth} × ${shown.naturalHeight}` : ""}`;
    };
    const overlap = this.overlap, [one, other] = this.sides();
    const never = this.element.querySelector("[data-act=never]");
    never.textContent = `Never match this ${other}`;
    never.title = match.reference;
    this.facts.replaceChildren(
      ...fact("Verdict", verdict), ...fact("Probability", percent(match.probability)),
      ...fact("Score", decimal(match.score)),
      ...fact("In common", overlap ? `${share(overlap.query_share)} of the ${one}, ${share(overlap.reference_share)} of the ${other}` : NOT_PROVEN[this.proof], true),
      ...fact("Found as", views(match, one, other), true),
      ...fact("Group", this.finding.group ? `${this.finding.group.n_images} copies` : null),
      ...fact(capital(one), `${query.name}${size(query, this.query)}`, true),
      ...fact(capital(other), `${match.reference}${size(match.image, this.reference)}`, true),
      ...fact("Collection", $("collection").type === "hidden" ? null : this.finding.collection),
      ...fact("Path", match.image && match.image.source ? match.image.source : null, true));
  }

  // Of a group both are references; the largest is looked at as if it were the query.
  sides() {
    return this.finding.kind === "group" ? ["largest", "copy"] : ["query", "reference"];
  }

  setMode(mode) {
    this.mode = mode;
    this.arrange();
  }

  arrange() {
    clearInterval(this.timer);
    for (const button of this.buttons) button.setAttribute("aria-pressed", String(button.dataset.mode === this.mode));
    this.stage.classList.toggle("two", this.mode === "both");
    const knobs = { slider: ["Divider", this.slide], overlay: ["Opacity", this.opacity] };
    this.knobRow.hidden = !(this.mode in knobs);
    if (this.mode in knobs) {
      this.knobLabel.textContent = knobs[this.mode][0];
      this.knob.value = 100 * knobs[this.mode][1];
    }
    if (!this.finding || this.isLoading) return;
    const missing = !this.query || !this.reference;
    const laid = this.mode !== "both" && !this.overlap;
    this.note.hidden = !(missing || laid);
    this.note.textContent = missing
      ? "No preview of one of the pictures is kept, so there is little to compare."
      : `What the two have in common: ${NOT_PROVEN[this.proof]}; the ${this.sides()[1]} is laid over the whole ${this.sides()[0]}.`;
    this.build_panes();
    this.draw();
    if (this.mode === "flicker") {
      this.timer = setInterval(() => this.flick(), FLICKER_MS);
    }
  }

  flick(shown = this.veil && this.veil.hidden) {
    if (!this.veil) return;
    this.veil.hidden = !shown;
    this.tag.textContent = this.sides()[shown ? 1 : 0];
  }

  build_panes() {
    const { query, reference, finding } = this, [one, other] = this.sides();
    const name = (what, text) => el("span", { className: "tag" }, `${what} · ${text}`);
    const gone = () => el("p", { className: "none" }, "no preview");
    const width = query ? query.naturalWidth : 1, height = query ? query.naturalHeight : 1;
    this.size = [width, height];
    this.matrix = reference && query ? this.place() : null;
    this.planes = [];
    this.veil = this.divider = null;
    if (this.mode === "both") {
      const left = plane(...(query ? [query] : []), ...(this.overlap && query ? [outline(this.overlap.query_polygon, width, height)] : []));
      const right = plane(...(reference ? [reference] : []), ...(this.overlap && reference
        ? [outline(this.overlap.reference_polygon, reference.naturalWidth, reference.naturalHeight)] : []));
      if (reference) reference.style.transform = "";
      this.planes = [left, right];
      this.stage.replaceChildren(
        el("div", { className: "pane" }, query ? left : gone(), name(one, finding.query.name)),
        el("div", { className: "pane" }, reference ? right : gone(), name(other, finding.match.reference)));
      return;
    }
    const below = plane(...(query ? [query] : []));
    const box = el("div");
    box.style.cssText = `position:absolute;width:${width}px;height:${height}px;`;
    box.style.overflow = this.mode === "overlay" ? "visible" : "hidden";
    if (reference && this.matrix) {
      reference.style.transform = css(this.matrix);
      box.append(reference);
    }
    const above = plane(box);
    this.veil = el("div", { className: this.mode === "difference" ? "blend" : "" }, above);
    this.veil.style.cssText = `position:absolute;inset:0;${this.mode === "difference" ? "mix-blend-mode:difference;" : ""}`;
    const lines = this.overlap && this.mode !== "difference" && this.mode !== "flicker"
      ? plane(outline(this.overlap.query_polygon, width, height)) : plane();
    this.planes = [below, above, lines];
    this.tag = el("span", { className: "tag" }, {
      slider: `${one}  ⇔  ${other}`, flicker: other, difference: "black where the two agree", overlay: `${other} over ${one}`,
    }[this.mode]);
    this.divider = el("div", { className: "divider", hidden: this.mode !== "slider" });
    this.pane = el("div", { className: "pane" }, below, this.veil, lines, this.divider, this.tag);
    this.pane.style.isolation = "isolate";
    this.stage.replaceChildren(this.pane);
  }

  // The map from pixels of the reference's preview to those of the query's.
  place() {
    const [qw, qh] = [this.query.naturalWidth, this.query.naturalHeight];
    const [rw, rh] = [this.reference.naturalWidth, this.reference.naturalHeight];
    if (this.overlap) return multiply(multiply(diagonal(qw, qh), this.overlap.matrix), diagonal(1 / rw, 1 / rh));
    const scale = Math.min(qw / rw, qh / rh);
    return [[scale, 0, (qw - scale * rw) / 2], [0, scale, (qh - scale * rh) / 2], [0, 0, 1]];
  }

  fitOf(pane, width, height) {
    return 0.94 * Math.min(pane.clientWidth / width, pane.clientHeight / height);
  }

  draw() {
    const pane = this.stage.firstElementChild;
    if (!pane || !this.planes || !pane.clientWidth) return;
    const [width, height] = this.size;
    const base = this.fitOf(pane, width, height);
    const scale = base * this.view.zoom;
    const centre = [this.view.x * width, this.view.y * height];
    if (this.mode === "both") {
      this.put(this.planes[0], pane, scale, centre);
      if (this.reference && this.matrix) this.putBeside(this.stage.lastElementChild, scale, centre);
    } else {
      for (const one of this.planes) this.put(one, pane, scale, centre);
      this.drawKnob(pane);
    }
    this.scale = scale;
    this.stage.style.touchAction = this.view.zoom === 1 && this.mode !== "slider" ? "pan-y" : "none";
    this.shown.textContent = this.view.zoom === 1 ? "fit" : `${Math.round(100 * scale)} %`;
  }

  // The other picture follows: whole while the first is whole, then the same place at the same size.
  putBeside(pane, scale, centre) {
    const [width, height] = [this.reference.naturalWidth, this.reference.naturalHeight];
    const t = Math.min(1, Math.max(0, this.view.zoom - 1));
    const whole = this.fitOf(pane, width, height) * this.view.zoom;
    const there = project(invert(this.matrix), centre);
    const same = scale * enlargement(this.matrix, there);
    const mix = (a, b) => a + (b - a) * t;
    const at = [mix(this.view.x * width, there[0]), mix(this.view.y * height, there[1])];
    this.beside = { at, scale: Math.exp(mix(Math.log(whole), Math.log(same))) };
    this.put(this.planes[1], pane, this.beside.scale, at);
  }

  // A step on the other picture as one on the first, which may be turned or mirrored.
  across(step) {
    const { at, scale } = this.beside, to = at.map((value, axis) => value + step[axis] / scale);
    const [from, there] = [project(this.matrix, at), project(this.matrix, to)];
    return there.map((value, axis) => (value - from[axis]) * this.scale);
  }

  put(one, pane, scale, [x, y]) {
    const left = pane.clientWidth / 2 - x * scale, top = pane.clientHeight / 2 - y * scale;
    one.style.transform = `translate(${left}px, ${top}px) scale(${scale})`;
    one.classList.toggle("sharp", scale >= 3);
    for (const polygon of one.querySelectorAll("polygon")) {
      polygon.style.strokeWidth = `${(polygon.classList.contains("under") ? 5 : 2.5) / scale}px`;
    }
  }

  drawKnob(pane) {
    if (this.mode === "slider") {
      const x = this.slide * pane.clientWidth;
      this.veil.style.clipPath = `inset(0 0 0 ${x}px)`;
      this.divider.style.left = `${x - 1}px`;
    }
    this.veil.style.opacity = this.mode === "overlay" ? this.opacity : 1;
  }

  turn(value) {
    if (this.mode === "slider") this.slide = value;
    else this.opacity = value;
    this.draw();
  }

  zoomBy(factor) {
    const zoom = this.view.zoom * factor;
    this.zoomTo(Math.abs(zoom - 1) < 0.04 ? 1 : zoom);
  }

  // From half of what fits, or the pixels as they are, to many times that.
  zoomTo(zoom) {
    const real = this.scale ? this.view.zoom / this.scale : 1;
    this.view.zoom = Math.min(Math.max(LARGEST, real), Math.max(Math.min(0.5, real), zoom));
    this.draw();
  }

  fit() {
    this.view = { zoom: 1, x: 0.5, y: 0.5 };
    this.draw();
  }

  oneToOne() {
    if (this.scale) this.zoomTo(this.view.zoom / this.scale);
  }

  moveBy(dx, dy) {
    const clamp = (value) => Math.min(1, Math.max(0, value));
    this.view.x = clamp(this.view.x - dx / (this.scale * this.size[0]));
    this.view.y = clamp(this.view.y - dy / (this.scale * this.size[1]));
    this.draw();
  }

  listen() {
    let held = null, isBeside = false;
    const fingers = new Map();
    const spread = () => {
      const [[ax, ay], [bx, by]] = [...fingers.values()];
      return Math.hypot(ax - bx, ay - by);
    };
    this.stage.addEventListener("pointerdown", (event) => {
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      held = [event.clientX, event.clientY];
      isBeside = this.mode === "both" && event.target.closest(".pane") === this.stage.lastElementChild;
      this.stage.setPointerCapture(event.pointerId);
      if (this.mode === "slider") this.slideTo(event);
    });
    this.stage.addEventListener("pointermove", (event) => {
      if (!held) return;
      if (fingers.size === 2 && fingers.has(event.pointerId)) { // two fingers zoom
        const before = spread();
        fingers.set(event.pointerId, [event.clientX, event.clientY]);
        return this.zoomTo(this.view.zoom * spread() / before);
      }
      if (this.mode === "slider") return this.slideTo(event);
      const step = [event.clientX - held[0], event.clientY - held[1]];
      const isSame = isBeside && this.matrix && this.view.zoom > 1.5; // both show the same place
      this.moveBy(...(isSame ? this.across(step) : step));
      held = [event.clientX, event.clientY];
    });
    for (const name of ["pointerup", "pointercancel"]) this.stage.addEventListener(name, ({ pointerId }) => {
      fingers.delete(pointerId);
      held = null;
    });
    this.stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
      this.zoomTo(this.view.zoom * Math.exp(-event.deltaY * lines / 400));
    }, { passive: false });
    this.stage.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
      if (!(event.key in steps)) return;
      event.preventDefault();
      this.moveBy(...steps[event.key]);
    });
  }

  slideTo(event) {
    const box = this.stage.getBoundingClientRect();
    this.slide = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    this.knob.value = 100 * this.slide;
    this.draw();
  }
}
