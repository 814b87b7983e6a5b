// Maps of the plane, as 3 x 3 matrices of rows.

export function multiply(a, b) {
  return a.map((row) => b[0].map((_, j) => row.reduce((sum, value, k) => sum + value * b[k][j], 0)));
}

export const diagonal = (x, y) => [[x, 0, 0], [0, y, 0], [0, 0, 1]];

export function invert(m) {
  const [[a, b, c], [d, e, f], [g, h, i]] = m;
  const [A, B, C] = [e * i - f * h, f * g - d * i, d * h - e * g];
  const det = a * A + b * B + c * C;
  return [
    [A / det, (c * h - b * i) / det, (b * f - c * e) / det],
    [B / det, (a * i - c * g) / det, (c * d - a * f) / det],
    [C / det, (b * g - a * h) / det, (a * e - b * d) / det],
  ];
}

export function project(m, [x, y]) {
  const w = m[2][0] * x + m[2][1] * y + m[2][2];
  return [(m[0][0] * x + m[0][1] * y + m[0][2]) / w, (m[1][0] * x + m[1][1] * y + m[1][2]) / w];
}

// How much larger a small square becomes there, along its side.
export function enlargement(m, at) {
  const [x, y] = project(m, at);
  const [right, down] = [project(m, [at[0] + 1, at[1]]), project(m, [at[0], at[1] + 1])];
  const area = (right[0] - x) * (down[1] - y) - (right[1] - y) * (down[0] - x);
  return Math.sqrt(Math.abs(area));
}

export function css(m) {
  const k = m[2][2];
  const n = m.map((row) => row.map((value) => value / k));
  const columns = [
    n[0][0], n[1][0], 0, n[2][0], n[0][1], n[1][1], 0, n[2][1], 0, 0, 1, 0, n[0][2], n[1][2], 0, 1,
  ];
  return `matrix3d(${columns.map((value) => value.toFixed(9)).join(",")})`;
}
