// The class of a matter: typed by name, pinyin initials or code, or found in the tree; the model's five stand first.
import { getJson } from "../staff/net.js";

const MOST = 14;
const input = document.getElementById("f-category");
const tree = document.getElementById("category-tree");
let leaves = [];
let open = new Set(); // prefixes of opened branches
let candidates = [];
let chosen = "";
let active = -1;
let choose = () => {};

export async function loadCategories(onChoose) {
  choose = onChoose;
  leaves = await getJson("/desk/categories.json");
}

export const pathOf = (code) => leaves.find((leaf) => leaf.code === code)?.path ?? [];
export const label = (path) => path.filter((name, n) => n === 0 || name !== "其他" || n === path.length - 1).join(" / ");
export const currentCode = () => chosen;

export function setCategory(code, path) {
  chosen = code ?? "";
  if (tree.hidden) input.value = path?.length ? label(path) : "";
}

export const setCandidates = (found) => { candidates = found; };

// Lower is better; null = no match.
function rank(leaf, query) {
  if (leaf.code.startsWith(query)) return 0;
  const names = leaf.path.join("");
  if (leaf.path[2].includes(query)) return 1;
  if (leaf.initials[2].startsWith(query)) return 2;
  if (names.includes(query)) return 3;
  const initials = leaf.initials.join("");
  if (leaf.initials[1].startsWith(query) || (leaf.initials[1] + leaf.initials[2]).startsWith(query)) return 4;
  if (initials.includes(query)) return 5;
  let at = 0;
  for (const character of query) {
    at = names.indexOf(character, at) + 1;
    if (!at) return null;
  }
  return 6;
}

function found(query) {
  const order = new Map(candidates.map((candidate, n) => [candidate.code, n]));
  return leaves
    .map((leaf) => ({ leaf, rank: rank(leaf, query) }))
    .filter((item) => item.rank !== null)
    .sort((a, b) => a.rank - b.rank || (order.get(a.leaf.code) ?? 9) - (order.get(b.leaf.code) ?? 9) || a.leaf.code.localeCompare(b.leaf.code))
    .slice(0, MOST)
    .map(({ leaf }) => ({ kind: "leaf", code: leaf.code, text: label(leaf.path), level: 1 }));
}

function branches() {
  const items = candidates.map((c) => ({ kind: "leaf", code: c.code, text: label(c.path), level: 1, sure: c.confidence }));
  let first = "";
  let second = "";
  for (const leaf of leaves) {
    const [one, two] = [leaf.code.slice(0, 2), leaf.code.slice(0, 4)];
    if (one !== first) items.push({ kind: "branch", code: (first = one), text: leaf.path[0], level: 1 });
    if (!open.has(one)) continue;
    if (two !== second) items.push({ kind: "branch", code: (second = two), text: leaf.path[1], level: 2 });
    if (open.has(two)) items.push({ kind: "leaf", code: leaf.code, text: leaf.path[2], level: 3 });
  }
  return items;
}

let items = [];

function draw(keep = null) {
  const query = input.value.trim().toLowerCase();
  items = query ? found(query) : branches();
  tree.replaceChildren(...items.map(node));
  if (!items.length) tree.textContent = "没有这样的类别";
  const again = keep ? items.findIndex((item) => item.code === keep) : -1;
  move(again >= 0 ? again : items.length ? 0 : -1);
}

function node(item, number) {
  const element = document.createElement("div");
  element.id = `cat-${number}`;
  element.className = `picker-item level-${item.level}`;
  element.setAttribute("role", "treeitem");
  element.setAttribute("aria-level", item.level);
  if (item.kind === "branch") {
    element.setAttribute("aria-expanded", open.has(item.code));
    element.innerHTML = `<i class="bi bi-chevron-${open.has(item.code) ? "down" : "right"}" aria-hidden="true"></i>`;
  }
  element.append(item.text);
  const code = document.createElement("span");
  code.className = "picker-code number";
  code.textContent = item.sure === undefined ? item.code : `${Math.min(99, Math.round(item.sure * 100))}%`;
  element.append(code);
  element.addEventListener("mousedown", (event) => {
    event.preventDefault();
    use(number);
  });
  return element;
}

function move(to) {
  tree.children[active]?.removeAttribute("aria-selected");
  active = to;
  const element = items.length ? tree.children[active] : null;
  if (!element) return input.removeAttribute("aria-activedescendant");
  element.setAttribute("aria-selected", "true");
  element.scrollIntoView({ block: "nearest" });
  input.setAttribute("aria-activedescendant", element.id);
}

function toggle(item, wanted) {
  if (item?.kind !== "branch" || open.has(item.code) === wanted) return false;
  if (wanted) open.add(item.code);
  else open.delete(item.code);
  draw(item.code);
  return true;
}

function use(number) {
  const item = items[number];
  if (!item) return;
  if (item.kind === "branch") return toggle(item, !open.has(item.code));
  chosen = item.code;
  close();
  choose(item.code);
}

function show() {
  if (!tree.hidden) return;
  tree.hidden = false;
  input.setAttribute("aria-expanded", "true");
  open = new Set();
  input.value = "";
  draw();
}

function close() {
  tree.hidden = true;
  input.setAttribute("aria-expanded", "false");
  input.removeAttribute("aria-activedescendant");
  input.value = chosen ? label(pathOf(chosen)) : "";
}

export const isOpen = () => !tree.hidden;

export function openPicker() {
  input.focus();
  show();
}

input.addEventListener("click", show);
input.addEventListener("input", () => (tree.hidden ? ((tree.hidden = false), input.setAttribute("aria-expanded", "true"), draw()) : draw()));
input.addEventListener("blur", close);
input.addEventListener("focus", () => input.select());
input.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (tree.hidden) {
    if (event.key === "Enter") {
      event.preventDefault();
      show();
    }
    return;
  }
  const item = items[active];
  const keys = {
    ArrowDown: () => move(Math.min(active + 1, items.length - 1)),
    ArrowUp: () => move(Math.max(active - 1, 0)),
    PageDown: () => move(Math.min(active + 10, items.length - 1)),
    PageUp: () => move(Math.max(active - 10, 0)),
    Enter: () => use(active),
    Escape: close,
  };
  if (!input.value) {
    keys.ArrowRight = () => toggle(item, true);
    keys.ArrowLeft = () => toggle(item, false) || move(Math.max(0, items.findLastIndex((other, n) => n < active && other.level < item.level)));
  }
  if (!keys[event.key]) return;
  event.preventDefault();
  event.stopPropagation();
  keys[event.key]();
});
