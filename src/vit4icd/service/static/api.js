// Calls of the service; what goes wrong becomes an Error with the problem's own words.

import { meta } from "./dom.js";

export class Problem extends Error {
  constructor(document, status) {
    super(document.detail || document.title || `the service answered ${status}`);
    this.code = document.code;
    this.status = status;
  }
}

async function answer(request) {
  let response;
  try {
    response = await request;
  } catch {
    throw new Problem({ detail: "the service cannot be reached" }, 0);
  }
  const fields = await response.json().catch(() => ({}));
  if (response.status === 401) location.assign("/login");
  if (!response.ok) throw new Problem(fields, response.status);
  return fields;
}

export const get = (path) => answer(fetch(path));

export function post(path, body) {
  const headers = { "X-CSRF-Token": meta("csrf-token") };
  if (!(body instanceof FormData)) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(body);
  }
  return answer(fetch(path, { method: "POST", headers, body }));
}

export async function logOut() {
  const headers = { "X-CSRF-Token": meta("csrf-token") };
  const response = await fetch("/logout", { method: "POST", headers }).catch(() => null);
  if (!response) throw new Problem({ detail: "the service cannot be reached: you are still logged in" }, 0);
  const isOver = response.ok || response.status === 401;
  if (!isOver) throw new Problem(await response.json().catch(() => ({})), response.status);
  location.assign("/login");
}
