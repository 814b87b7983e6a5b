// Elements from text: nothing that comes from data is ever read as markup.

export const $ = (id) => document.getElementById(id);

export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export const meta = (name) => document.querySelector(`meta[name="${name}"]`).content;

export function say(text) {
  $("status").textContent = text;
}

// The same where it has to be seen, too, for a moment.
export function tell(text) {
  say(text);
  $("toast").textContent = text;
  $("toast").hidden = false;
  clearTimeout(tell.timer);
  tell.timer = setTimeout(() => { $("toast").hidden = true; }, 4000);
}

export function complain(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

export function preview(picture, alt) {
  const holder = el("span");
  if (!picture) return holder.append(el("span", { className: "none" }, "no preview")), holder;
  const image = el("img", { alt, src: `/v1/images/${picture}/thumbnail`, loading: "lazy" });
  image.addEventListener("error", () => image.replaceWith(el("span", { className: "none" }, "no preview")));
  holder.append(image);
  return holder;
}

export function percent(probability) {
  if (probability === null || probability === undefined) return "–";
  if (probability >= 0.995) return ">\u00a099\u00a0%";
  return probability < 0.005 ? "<\u00a01\u00a0%" : `${Math.round(100 * probability)}\u00a0%`;
}

export const decimal = (value) => value.toFixed(3).replace("-", "\u2212");

// Which views of the two are nearest to each other; nothing where both are as they are, and whole.
export function views({ orientation, query_part, reference_part }, one, other) {
  const turned = orientation.split(", ")[0].replace(/\d+/, "$&°");
  const part = (name) => (name === "whole" ? name : `${name} part`);
  if (turned === "upright" && query_part === "whole" && reference_part === "whole") return null;
  return `${one}: ${turned === "upright" ? "" : `${turned}, `}${part(query_part)}; ${other}: ${part(reference_part)}`;
}

export const share = (value) => `${Math.round(100 * value)}\u00a0%`;
