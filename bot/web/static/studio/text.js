// A text with spans on it. Everything outside this file counts code points, as the server does; the browser counts UTF-16 units,
// and the only place that converts is selectedSpan().
const CLAUSE_END = /[。！？；!?;\n]/;

export const pointsOf = (text) => Array.from(text);

// Segments between all borders: [{start, end, evidence, place, main}].
function segments(points, { evidence, places, main, splits }) {
  const borders = new Set([0, points.length, ...splits]);
  for (const [start, end] of [...evidence, ...places]) borders.add(start).add(end);
  const sorted = [...borders].filter((at) => at >= 0 && at <= points.length).sort((a, b) => a - b);
  return sorted.slice(0, -1).map((start, n) => {
    const end = sorted[n + 1];
    const inside = ([from, to]) => from <= start && end <= to;
    const place = places.findIndex(inside);
    return { start, end, evidence: evidence.find(inside)?.[2] ?? 0, place, main: place >= 0 && place === main };
  });
}

// `splits`: where a new part begins. `offered`: where one may be made, shown only while splitting.
export function drawText(node, points, spans, { splitting = false, onSplit = () => {} } = {}) {
  const offered = splitting ? splitPoints(points) : [];
  const shown = { ...spans, splits: [...spans.splits, ...offered] };
  const strongest = Math.max(0.0001, ...spans.evidence.map((span) => span[2]));
  const pieces = [];
  for (const { start, end, evidence, place, main } of segments(points, shown)) {
    const isSplit = spans.splits.includes(start);
    if (start > 0 && (isSplit || offered.includes(start))) pieces.push(splitMark(start, isSplit, offered.indexOf(start), splitting, onSplit));
    const piece = document.createElement("span");
    piece.dataset.start = start;
    piece.textContent = points.slice(start, end).join("");
    if (evidence > 0) piece.classList.add(evidence > strongest / 2 ? "evidence-strong" : "evidence");
    if (place >= 0) piece.classList.add("place");
    if (main) piece.classList.add("place-main");
    pieces.push(piece);
  }
  node.replaceChildren(...pieces);
}

function splitMark(at, on, number, splitting, onSplit) {
  const mark = document.createElement(splitting ? "button" : "span");
  mark.className = on ? "split-mark on" : "split-mark";
  if (!splitting) return mark;
  mark.type = "button";
  mark.setAttribute("aria-label", on ? "合上" : "从这里拆开");
  if (number >= 0 && number < 9) mark.dataset.key = number + 1;
  mark.addEventListener("click", () => onSplit(at));
  return mark;
}

// Where sentences end and another begins.
export function splitPoints(points) {
  const found = [];
  for (let at = 1; at < points.length; at += 1) {
    if (CLAUSE_END.test(points[at - 1]) && !CLAUSE_END.test(points[at]) && points.slice(at).join("").trim()) found.push(at);
  }
  return found;
}

// The selected part of `node` as [start, end] without blanks around it, or null.
export function selectedSpan(node, points) {
  const selection = document.getSelection();
  if (!selection.rangeCount || selection.isCollapsed) return null;
  const range = selection.getRangeAt(0);
  if (!node.contains(range.commonAncestorContainer)) return null;
  let start = offsetOf(node, range.startContainer, range.startOffset, points.length);
  let end = offsetOf(node, range.endContainer, range.endOffset, points.length);
  while (start < end && !points[start].trim()) start += 1;
  while (end > start && !points[end - 1].trim()) end -= 1;
  return start < end ? [start, end] : null;
}

function offsetOf(node, container, offset, length) {
  if (container.nodeType === Node.TEXT_NODE) {
    const piece = container.parentElement.closest("[data-start]");
    return Number(piece.dataset.start) + pointsOf(container.data.slice(0, offset)).length;
  }
  const after = [...container.childNodes].slice(offset).map((child) => child.closest?.("[data-start]") ?? child.querySelector?.("[data-start]"));
  const next = after.find(Boolean);
  if (next) return Number(next.dataset.start);
  const own = container.closest?.("[data-start]");
  return own && own !== node ? Number(own.dataset.start) + (offset ? pointsOf(own.textContent).length : 0) : length;
}
