// The review page: the list, the item in hand, the keyboard. A decision is sent, the next item is drawn at once.
import { attempt, getJson, postJson, Refused, tell } from "../staff/net.js";
import { acceptGroup, closeGroup, groupCategory, groupOpen, listGroups, openGroup, setGroupCategory } from "./groups.js";
import { choices, drawItem, Item, node, percent, reasonBadge } from "./item.js";
import { pick, picking } from "./picker.js";
import { selectedSpan, splitPoints } from "./text.js";

const element = (id) => document.getElementById(id);
const REFILL = 15;
const filters = { state: "open", reason: "", category: "", channel: "", district: "", model: "", since: "", until: "", words: "" };
let categories = [];
let names = new Map();
let rows = [];
let more = false;
let current = null; // index into rows
let item = null; // null while the next one is fetched: no key may decide what is no longer shown as in hand
let armed = null; // the field that the next digit sets
let sending = false;
let judged = [];

const query = () => new URLSearchParams(Object.entries(filters).filter(([, value]) => value)).toString();

// -- the list ---------------------------------------------------------------------------------------------------------

async function reload({ keep = null } = {}) {
  closeGroup();
  document.querySelector(".review-aside section").hidden = filters.state === "groups";
  rows = [];
  element("rows").replaceChildren(node("li", "empty", "正在载入……"));
  if (filters.state === "groups") {
    rows = await listGroups(query());
    more = false;
  } else if (!(await loadMore())) {
    return showNothing("读不出来，请检查网络后刷新。");
  }
  drawRows();
  if (rows.length === 0) return showNothing(nothingText());
  const at = keep === null ? 0 : rows.findIndex((row) => row.id === keep);
  return open(Math.max(0, at));
}

async function loadMore() {
  const last = rows.at(-1);
  const after = last ? `&after=${last.priority}:${last.id}` : "";
  const answer = await attempt(() => getJson(`/studio/review/items?${query()}${after}`));
  if (!answer) return false;
  const known = new Set(rows.map((row) => row.id));
  rows.push(...answer.items.filter((row) => !known.has(row.id)));
  more = answer.items.length >= 60 && filters.state !== "done";
  if (filters.words && !answer.ready) tell("还在准备搜索，结果可能不全，稍后再试。");
  return true;
}

function nothingText() {
  const filtered = Object.entries(filters).some(([name, value]) => name !== "state" && value);
  if (filtered) return "没有符合条件的。换个条件，或清除筛选。";
  return { open: "都审完了。新的诉求、更正和退回会自动排进来。", groups: "没有可以成组处理的。", disputed: "没有分歧。", skipped: "没有跳过的。", done: "还没有审过的。" }[filters.state];
}

// What is shown is not in hand any more: neither keys nor clicks reach it.
function letGo() {
  item = null;
  armed = null;
  popover.hidden = true;
  element("item").inert = true;
}

function showNothing(text) {
  letGo();
  current = null;
  element("rows").replaceChildren();
  element("similar").replaceChildren();
  say(text);
}

// A sentence where the item would be.
function say(text) {
  element("item").hidden = true;
  element("nothing").hidden = false;
  element("nothing").textContent = text;
}

function drawRows() {
  element("rows").replaceChildren(...rows.map(row));
  if (more) element("rows").append(node("li", "review-more-rows", "……"));
}

function row(data, n) {
  const line = node("li", "review-row");
  const button = node("button", "", "");
  button.type = "button";
  const label = node("span", "review-row-label", data.size ? `${data.size} 条 · ${data.short}` : data.short);
  const sure = node("small", data.confidence < 0.6 ? "review-sure low" : "review-sure", percent(data.confidence));
  const head = node("span", "review-row-head");
  head.append(label, ...(data.size ? [] : [sure]));
  const badges = node("span", "review-row-badges");
  badges.append(...data.reasons.filter((reason) => reason !== "low").map(reasonBadge));
  button.append(head, node("span", "review-row-text", data.snippet), badges);
  button.addEventListener("click", () => open(n));
  line.append(button);
  if (n === current) line.classList.add("active");
  return line;
}

function select(n) {
  current = n;
  [...element("rows").children].forEach((line, at) => line.classList.toggle("active", at === n));
  element("rows").children[n]?.scrollIntoView({ block: "nearest" });
}

// -- the item in hand -------------------------------------------------------------------------------------------------

async function open(n) {
  if (!rows[n]) return showNothing(nothingText());
  letGo();
  select(n);
  element("nothing").hidden = true;
  if (filters.state === "groups") {
    element("item").hidden = true;
    element("similar").replaceChildren();
    return openGroup(rows[n].cluster, { pick: pickCategory, accepted: groupAccepted });
  }
  const { id } = rows[n];
  const answer = await attempt(() => getJson(`/studio/review/items/${id}`));
  if (rows[current]?.id !== id) return undefined;
  if (!answer) return say("这一条读不出来，请检查网络后再点一次。");
  item = new Item(answer, names);
  element("item").hidden = false;
  element("item").inert = false;
  draw();
  element("text").focus({ preventScroll: true });
  return showSimilar(id);
}

const actions = {
  pick: (name) => (name === "intent" ? pickIntent() : pickCategory()),
  changed: () => draw(),
  use: (labels) => { item.use(labels); draw(); },
};

function draw() {
  drawItem(item, actions);
  for (const field of document.querySelectorAll("[data-field]")) field.classList.toggle("armed", field.dataset.field === armed);
}

async function showSimilar(id) {
  const box = element("similar");
  box.replaceChildren(node("p", "empty", "……"));
  const answer = await getJson(`/studio/review/items/${id}/similar`).catch(() => null);
  if (item?.data.id !== id) return;
  const found = answer?.similar ?? [];
  box.replaceChildren(...found.map(similarRow));
  if (found.length === 0) box.append(node("p", "empty", answer?.ready === false ? "正在准备，稍后就有。" : "没有相似的。"));
}

function similarRow(one) {
  const line = node("div", "review-similar-row");
  const head = node("div", "review-row-head");
  head.append(node("span", "review-row-label", one.label), node("small", "", `${percent(one.likeness)} ${one.judged ? "已审" : "待审"}`));
  line.append(head, node("p", "", one.snippet));
  return line;
}

// -- deciding ---------------------------------------------------------------------------------------------------------

async function send(path, body, said) {
  if (!item || sending) return;
  if (body.labels && Object.keys(body.labels).length === 0) return void pickIntent();
  sending = true;
  const { id } = item.data;
  try {
    const { state } = await postJson(`/studio/review/items/${id}${path}`, { ...body, version: item.data.version });
    judged = [...judged, Date.now()].filter((at) => at > Date.now() - 600_000);
    status(state === "disputed" ? "与另一位的意见不同，已转复核" : said);
    leave(id, state);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    tell(error.message, { problem: true });
    if (error.status === 409) await open(current);
    if (error.status === 404) leave(id, "gone");
  } finally {
    sending = false;
  }
}

// The item leaves the list unless it still belongs there; the next one comes up.
function leave(id, state) {
  const at = rows.findIndex((row) => row.id === id);
  const stays = filters.state === state || (filters.state === "done" && (state === "accepted" || state === "fixed"));
  if (at >= 0 && !stays) rows.splice(at, 1);
  const next = stays ? at + 1 : at;
  drawRows();
  countSoon();
  if (rows.length === 0) return void reload();
  open(Math.min(next, rows.length - 1));
  if (more && rows.length - next < REFILL) loadMore().then(() => { drawRows(); select(current); });
}

function accept() {
  if (groupOpen()) return acceptGroup();
  if (item && !item.labels.intent && item.touched.size === 0) return pickIntent();
  return send("", { labels: item?.toSend() }, item?.touched.size ? "已保存" : "已采纳");
}

async function undo() {
  const answer = await attempt(() => postJson("/studio/review/undo"));
  if (!answer) return;
  if (answer.items.length === 0) return tell("没有可以撤销的了。");
  judged.pop();
  status(answer.items.length > 1 ? `已撤销 ${answer.items.length} 条` : "已撤销");
  countSoon();
  if (filters.state === "groups" || filters.state === "done") return reload();
  return bringBack(answer.items[0]);
}

async function bringBack(id) {
  const answer = await attempt(() => getJson(`/studio/review/items/${id}`));
  if (!answer) return;
  const at = rows.findIndex((row) => row.id === id);
  if (at >= 0) rows[at] = answer; else rows.unshift(answer);
  drawRows();
  open(at >= 0 ? at : 0);
}

function groupAccepted(count) {
  status(`已采纳 ${count} 条`);
  for (let n = 0; n < count; n += 1) judged.push(Date.now());
  rows.splice(current, 1);
  drawRows();
  countSoon();
  open(Math.min(current, rows.length - 1));
}

function status(said) {
  const minute = judged.filter((at) => at > Date.now() - 60_000).length;
  element("status").textContent = `${said} · 近一分钟 ${minute} 条`;
}

// -- picking ----------------------------------------------------------------------------------------------------------

async function pickCategory() {
  const mine = item;
  const now = groupOpen() ? groupCategory() : mine.labels.category;
  const code = await pick(categories, { title: "类别：名称、拼音首字母或编码", current: now });
  if (code && groupOpen()) setGroupCategory(code, names.get(code));
  else if (code) mine?.set("category", code);
  back();
}

async function pickIntent() {
  const mine = item;
  const code = await pick(choices.intents, { title: "意图：名称或拼音首字母", current: mine.labels.intent ?? "" });
  if (code) mine.set("intent", code);
  back();
}

function back() {
  if (groupOpen() || !item) return;
  draw();
  element("text").focus({ preventScroll: true });
}

// -- selecting text ---------------------------------------------------------------------------------------------------

const popover = element("selection");

document.addEventListener("selectionchange", () => {
  const span = item && selectedSpan(element("text"), item.points);
  popover.hidden = !span;
  if (!span) return;
  const box = document.getSelection().getRangeAt(0).getBoundingClientRect();
  popover.style.left = `${Math.max(8, Math.min(box.left, window.innerWidth - popover.offsetWidth - 8))}px`;
  popover.style.top = `${box.bottom + window.scrollY + 6}px`;
});
popover.addEventListener("mousedown", (event) => event.preventDefault());

function withSelection(action) {
  const span = item && selectedSpan(element("text"), item.points);
  if (!span) return tell("请先在文字里选中一段。");
  action(span);
  document.getSelection().removeAllRanges();
  return draw();
}

const markPlace = () => withSelection((span) => item.addPlace(span));
element("mark-place").addEventListener("click", markPlace);
element("mark-split").addEventListener("click", () => withSelection(([start]) => { if (start > 0) item.toggleSplit(start); }));

// -- keyboard ---------------------------------------------------------------------------------------------------------

function digit(number) {
  if (item.splitting) {
    const at = splitPoints(item.points)[number - 1];
    if (at) item.toggleSplit(at);
  } else if (armed) {
    const value = choices[armed === "urgency" ? "urgencies" : "request_types"][number - 1];
    if (value) item.set(armed, value);
    armed = null;
  } else if (item.data.alternatives[number - 1]) {
    item.set("category", item.data.alternatives[number - 1].code);
  }
  draw();
}

const arm = (name) => { armed = armed === name ? null : name; draw(); };
const keys = {
  Enter: accept,
  s: () => send("/skip", {}, "已跳过"),
  z: undo,
  j: () => { if (current !== null && current < rows.length - 1) open(current + 1); },
  k: () => { if (current > 0) open(current - 1); },
  c: () => pickCategory(),
  i: () => pickIntent(),
  r: () => arm("request_type"),
  u: () => arm("urgency"),
  l: markPlace,
  p: () => { item.splitting = !item.splitting; draw(); },
  Escape: () => { armed = null; item.splitting = false; draw(); },
};
const WITHOUT_ITEM = new Set(["Enter", "z", "j", "k", "c"]);
const WHILE_FETCHING = new Set(["z", "j", "k"]);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || picking()) return;
  if (event.target.closest("input, select, textarea")) return;
  if (event.key === "Enter" && event.target.closest("button, a")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const usable = filters.state === "groups" ? WITHOUT_ITEM.has(key) && (key !== "c" || groupOpen()) : item || WHILE_FETCHING.has(key);
  if (!usable) return;
  if (/^[1-9]$/.test(key) && filters.state !== "groups") { event.preventDefault(); digit(Number(key)); return; }
  if (!keys[key]) return;
  event.preventDefault();
  keys[key]();
});

element("accept").addEventListener("click", accept);
element("skip").addEventListener("click", keys.s);
element("undo").addEventListener("click", undo);
element("final").addEventListener("click", () => send("", { labels: item.toSend(), final: true }, "已定夺"));
for (const id of ["accept", "skip", "undo", "final"]) element(id).addEventListener("mousedown", (event) => event.preventDefault());

// -- filters ----------------------------------------------------------------------------------------------------------

let counting = null;
function countSoon() {
  clearTimeout(counting);
  counting = setTimeout(count, 400);
}

async function count() {
  const facets = await getJson("/studio/review/facets").catch(() => null);
  if (!facets) return;
  for (const tab of element("states").children) {
    const { state } = tab.dataset;
    tab.dataset.name ??= tab.textContent;
    tab.textContent = state in facets.states ? `${tab.dataset.name} ${facets.states[state]}` : tab.dataset.name;
    tab.classList.toggle("active", state === filters.state);
    tab.setAttribute("aria-selected", state === filters.state);
  }
  drawReasons(facets.reason);
  for (const name of ["category", "channel", "district", "model"]) fillSelect(name, facets[name]);
}

function drawReasons(counts) {
  const buttons = choices.reasons.map(([reason, name]) => {
    const button = node("button", filters.reason === reason ? "reason active" : "reason", `${name} ${counts[reason] ?? 0}`);
    button.type = "button";
    button.setAttribute("aria-pressed", filters.reason === reason);
    button.addEventListener("click", () => { filters.reason = filters.reason === reason ? "" : reason; drawReasons(counts); reload(); });
    return button;
  });
  element("reasons").replaceChildren(...buttons);
}

function fillSelect(name, counts) {
  const select = document.querySelector(`#filters [name=${name}]`);
  const label = { category: (value) => names.get(value), channel: (value) => choices.channels[value] }[name] ?? ((value) => value);
  const options = Object.entries(counts).map(([value, count]) => new Option(`${label(value) ?? value}（${count}）`, value));
  select.replaceChildren(new Option("全部", ""), ...options);
  select.value = filters[name];
}

for (const tab of element("states").children) {
  tab.addEventListener("click", () => { filters.state = tab.dataset.state; count(); reload(); });
}
element("search").addEventListener("submit", (event) => event.preventDefault());
let typing = null;
element("words").addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(() => { filters.words = event.target.value.trim(); reload(); }, 350);
});
element("more-filters").addEventListener("click", (event) => {
  const box = element("filters");
  box.hidden = !box.hidden;
  event.currentTarget.setAttribute("aria-expanded", String(!box.hidden));
});
element("filters").addEventListener("change", (event) => { filters[event.target.name] = event.target.value; reload(); });
element("filters").addEventListener("reset", () => {
  for (const name of ["category", "channel", "district", "model", "since", "until"]) filters[name] = "";
  setTimeout(() => reload());
});

async function start() {
  const answer = await attempt(() => getJson("/studio/review/categories"));
  categories = answer?.categories ?? [];
  names = new Map(categories.map((one) => [one.code, [...new Set(one.path)].join(" · ")]));
  await Promise.all([count(), reload()]);
  setInterval(count, 20_000);
}

start();
