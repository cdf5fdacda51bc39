// A dialog to pick one of many: by typing a name, its pinyin or initials, or a code; or by walking the tree.
const dialog = document.getElementById("picker");
const input = document.getElementById("picker-input");
const list = document.getElementById("picker-list");
const MOST = 40;

let options = [];
let shown = [];
let active = 0;
let expanded = new Set();
let done = () => {};

// `options`: [{code, name, initials, pinyin, path?}]; a path makes a tree of codes two digits a level. Resolves to a code or null.
export function pick(all, { title, current = "" }) {
  options = all;
  expanded = new Set([current.slice(0, 2), current.slice(0, 4)]);
  input.value = "";
  input.placeholder = title;
  draw(current);
  dialog.showModal();
  input.focus();
  return new Promise((resolve) => { done = resolve; });
}

export const picking = () => dialog.open;

function matches(typed) {
  const rank = (option) => {
    const names = [option.name, ...(option.path ?? [])];
    if (option.code === typed || option.name === typed) return 0;
    if (option.initials.startsWith(typed) || option.name.startsWith(typed) || option.code.startsWith(typed)) return 1;
    if (option.pinyin.startsWith(typed) || option.name.includes(typed)) return 2;
    return option.initials.includes(typed) || names.some((name) => name.includes(typed)) ? 3 : 9;
  };
  return options.map((option) => [rank(option), option]).filter(([rank]) => rank < 9)
    .sort(([a], [b]) => a - b).slice(0, MOST).map(([, option]) => option);
}

function tree() {
  return options.filter((option) => !option.path || option.path.length === 1 || expanded.has(option.code.slice(0, -2)));
}

function draw(keep) {
  const typed = input.value.trim().toLowerCase();
  shown = typed ? matches(typed) : tree();
  active = Math.max(0, shown.findIndex((option) => option.code === keep));
  list.replaceChildren(...shown.map((option, n) => row(option, n, Boolean(typed))));
  if (shown.length === 0) list.innerHTML = '<li class="empty">没有符合的，换个词试试。</li>';
  show();
}

function row(option, n, flat) {
  const item = document.createElement("li");
  item.id = `picker-${n}`;
  item.role = "option";
  const depth = flat ? 1 : option.path?.length ?? 1;
  item.classList.add(`level-${depth}`);
  const name = document.createElement("span");
  name.textContent = flat && option.path?.length > 1 ? option.path.join(" · ") : option.name;
  const code = document.createElement("small");
  code.textContent = option.path ? option.code : option.initials;
  item.append(name, code);
  if (!flat && hasChildren(option)) item.classList.add(expanded.has(option.code) ? "open" : "shut");
  item.addEventListener("click", (event) => {
    if (!flat && hasChildren(option) && event.offsetX < 24) return toggle(option);
    return choose(option);
  });
  return item;
}

const hasChildren = (option) => option.path && options.some((one) => one.code.length === option.code.length + 2 && one.code.startsWith(option.code));

function show() {
  [...list.children].forEach((item, n) => item.classList.toggle("active", n === active));
  list.children[active]?.scrollIntoView({ block: "nearest" });
  input.setAttribute("aria-activedescendant", `picker-${active}`);
}

function toggle(option) {
  if (!expanded.delete(option.code)) expanded.add(option.code);
  draw(option.code);
}

function choose(option) {
  dialog.close(option.code);
}

dialog.addEventListener("close", () => {
  const code = dialog.returnValue;
  dialog.returnValue = "";
  done(code || null);
});

dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(""); });
input.addEventListener("input", () => draw());
input.addEventListener("keydown", (event) => {
  const option = shown[active];
  const free = !input.value;
  if (event.key === "ArrowDown") active = Math.min(active + 1, shown.length - 1);
  else if (event.key === "ArrowUp") active = Math.max(active - 1, 0);
  else if (event.key === "ArrowRight" && free && option && hasChildren(option)) return stop(event, () => { expanded.add(option.code); draw(option.code); });
  else if (event.key === "ArrowLeft" && free && option) return stop(event, () => collapse(option));
  else if (event.key === "Enter") return stop(event, () => { if (option) choose(option); });
  else return undefined;
  return stop(event, show);
});

function collapse(option) {
  const code = expanded.has(option.code) ? option.code : option.code.slice(0, -2);
  expanded.delete(code);
  draw(code);
}

function stop(event, action) {
  event.preventDefault();
  event.stopPropagation();
  action();
}
