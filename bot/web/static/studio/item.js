// One review item: its labels as the reviewer changes them, and how it is drawn. Knows no server.
import { drawText, pointsOf } from "./text.js";

const element = (id) => document.getElementById(id);
export const choices = JSON.parse(element("review").dataset.choices);
const intentOf = (code) => choices.intents.find((intent) => intent.code === code);
export const percent = (share) => `${Math.round(share * 100)}%`;

export function node(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

// Buttons that must not take the keyboard away from the item.
function quietButton(className, text, action) {
  const button = node("button", className, text);
  button.type = "button";
  button.addEventListener("mousedown", (event) => event.preventDefault());
  button.addEventListener("click", action);
  return button;
}

export class Item {
  constructor(data, categories) {
    this.data = data;
    this.points = pointsOf(data.text);
    this.names = categories;
    const given = data.labels;
    this.labels = { intent: given.intent ?? null, category: given.category, request_type: given.request_type, urgency: given.urgency };
    this.places = (given.places ?? []).map((span) => [...span]);
    this.main = given.main_place ?? (this.places.length ? 0 : null);
    this.parts = given.parts ?? [];
    this.splits = this.parts.slice(1).map(([start]) => start);
    this.splitsBefore = [...this.splits];
    this.touched = new Set();
    this.splitting = false;
  }

  get appeal() {
    return Boolean(intentOf(this.labels.intent)?.appeal);
  }

  set(name, value) {
    this.labels[name] = value;
    this.touched.add(name);
  }

  addPlace([start, end]) {
    const kept = this.places.filter(([from, to]) => to <= start || from >= end);
    const main = this.main === null ? null : this.places[this.main];
    this.places = [...kept, [start, end]].sort((a, b) => a[0] - b[0]);
    this.touched.add("places");
    this.setMain(kept.includes(main) ? main : this.places.find((span) => span[0] === start));
  }

  removePlace(span) {
    const main = this.places[this.main];
    this.places = this.places.filter((one) => one !== span);
    this.touched.add("places");
    this.setMain(main === span ? this.places[0] : main);
  }

  setMain(span) {
    const at = this.places.indexOf(span);
    this.main = at < 0 ? null : at;
  }

  toggleSplit(at) {
    this.splits = this.splits.includes(at) ? this.splits.filter((one) => one !== at) : [...this.splits, at].sort((a, b) => a - b);
    this.touched.add("parts");
  }

  // Labels that say something: of what is no appeal only the intent, unless the reviewer set more.
  toSend() {
    const wanted = (name) => this.appeal || this.touched.has(name);
    const sent = {};
    if (this.labels.intent) sent.intent = this.labels.intent;
    for (const name of ["category", "request_type", "urgency"]) if (wanted(name)) sent[name] = this.labels[name];
    if (wanted("places")) sent.places = this.places;
    if (wanted("places") && this.main !== null) sent.main_place = this.main;
    if (wanted("parts")) sent.parts = this.partsNow();
    return sent;
  }

  partsNow() {
    if (String(this.splits) === String(this.splitsBefore)) return this.parts;
    const borders = [0, ...this.splits, this.points.length];
    return borders.slice(0, -1).map((start, n) => [start, borders[n + 1]]);
  }

  use(labels) {
    for (const name of ["intent", "category", "request_type", "urgency"]) if (labels[name]) this.set(name, labels[name]);
    if (labels.places) this.places = labels.places.map((span) => [...span]);
    if (labels.places) this.main = labels.main_place ?? (this.places.length ? 0 : null);
    if (labels.parts) this.splits = labels.parts.slice(1).map(([start]) => start);
  }

  label(code) {
    return this.names.get(code) ?? code;
  }
}

// -- drawing ----------------------------------------------------------------------------------------------------------

// `actions`: {pick(name), changed(), use(labels)}
export function drawItem(item, actions) {
  drawHead(item.data);
  drawOpinions(item, actions);
  drawWords(item, actions);
  element("fields").replaceChildren(
    intentField(item, actions), categoryField(item, actions),
    choiceField(item, actions, "request_type", "诉求类型", "R", choices.request_types),
    choiceField(item, actions, "urgency", "紧急程度", "U", choices.urgencies),
    placeField(item, actions), partsField(item, actions),
  );
  const judged = item.data.state === "accepted" || item.data.state === "fixed";
  element("accept").firstElementChild.textContent = item.touched.size ? "保存修改" : judged ? "同意" : "采纳";
  element("final").hidden = item.data.state !== "disputed";
}

export function reasonBadge(reason) {
  const strong = reason === "corrected" || reason === "returned";
  return node("span", strong ? "badge badge-critical" : "badge badge-urgent", new Map(choices.reasons).get(reason));
}

export const day = (iso) => new Date(iso).toLocaleString("zh-CN", { month: "numeric", day: "numeric", hour: "2-digit", minute: "2-digit" });

function drawHead(data) {
  const where = [choices.channels[data.channel] ?? data.channel, data.district, day(data.at)].filter(Boolean).join(" · ");
  const model = node("span", "review-model", `模型 ${data.model}`);
  element("head").replaceChildren(...data.reasons.map(reasonBadge), node("span", "review-where", where), model);
}

function drawOpinions(item, actions) {
  const box = element("opinions");
  const opinions = item.data.opinions;
  box.hidden = opinions.length === 0;
  const rows = opinions.map((one) => {
    const row = node("div", "review-opinion");
    const said = [one.label, one.labels.request_type, one.labels.urgency, intentOf(one.labels.intent)?.name].filter(Boolean).join("　");
    const author = `${one.mine ? "我" : one.author}${one.final ? "（定夺）" : one.bulk ? "（成组）" : ""}`;
    row.append(node("strong", "", author), node("span", "", said), node("small", "", day(one.at)));
    if (!one.mine) row.append(quietButton("btn btn-sm btn-outline-primary", "用这个", () => actions.use(one.labels)));
    return row;
  });
  const names = { intent: "意图", category: "类别", request_type: "诉求类型", urgency: "紧急程度" };
  const disputed = item.data.disputed.map((name) => names[name]).join("、");
  if (disputed) rows.unshift(node("p", "review-dispute", `${disputed}意见不同：第三位审核人的意见算数，或由一位没有参与的班长定夺。`));
  box.replaceChildren(...rows);
}

export function drawWords(item, actions) {
  const spans = { evidence: item.data.evidence, places: item.places, main: item.main, splits: item.splits };
  const onSplit = (at) => { item.toggleSplit(at); actions.changed(); };
  drawText(element("text"), item.points, spans, { splitting: item.splitting, onSplit });
  element("split-help").hidden = !item.splitting;
}

function field(name, key, { quiet = false } = {}) {
  const row = node("div", quiet ? "review-field quiet" : "review-field");
  const title = node("dt", "", name);
  if (key) title.append(" ", node("kbd", "", key));
  const value = node("dd");
  row.append(title, value);
  return { row, value };
}

function corrected(item, name) {
  return name in item.data.corrected ? [node("span", "badge badge-critical", "坐席改过")] : [];
}

function changedMark(item, name) {
  const before = item.data.predicted[name];
  return before && item.labels[name] !== before ? node("span", "review-was", `原读作 ${name === "category" ? item.label(before) : before}`) : "";
}

function intentField(item, actions) {
  const { row, value } = field("意图", "I");
  const name = intentOf(item.labels.intent)?.name ?? "没听懂，请选";
  value.append(quietButton(`btn btn-sm ${item.labels.intent ? "btn-chosen" : "btn-missing"}`, name, () => actions.pick("intent")));
  value.append(node("small", "review-sure", percent(item.data.confidences.intent)));
  return row;
}

function categoryField(item, actions) {
  const { row, value } = field("类别", "C", { quiet: !item.appeal && !item.touched.has("category") });
  value.append(quietButton("btn btn-sm btn-chosen review-category", item.label(item.labels.category), () => actions.pick("category")));
  value.append(...corrected(item, "category"), changedMark(item, "category"));
  const offered = node("div", "review-alternatives");
  item.data.alternatives.forEach((one, n) => {
    const chosen = one.code === item.labels.category;
    const button = quietButton(`btn btn-sm ${chosen ? "btn-chosen" : "btn-outline-secondary"}`, "", () => { item.set("category", one.code); actions.changed(); });
    button.append(node("kbd", "", String(n + 1)), ` ${one.label} `, node("small", "", percent(one.confidence)));
    offered.append(button);
  });
  value.append(offered);
  return row;
}

function choiceField(item, actions, name, title, key, options) {
  const { row, value } = field(title, key, { quiet: !item.appeal && !item.touched.has(name) });
  options.forEach((option) => {
    const chosen = item.labels[name] === option;
    value.append(quietButton(`btn btn-sm ${chosen ? "btn-chosen" : "btn-outline-secondary"}`, option, () => { item.set(name, option); actions.changed(); }));
  });
  value.append(node("small", "review-sure", percent(item.data.confidences[name])), ...corrected(item, name), changedMark(item, name));
  row.dataset.field = name;
  return row;
}

function placeField(item, actions) {
  const { row, value } = field("地点", "L");
  item.places.forEach((span, n) => {
    const chip = node("span", n === item.main ? "review-place main" : "review-place");
    const star = quietButton("chip-button", n === item.main ? "★" : "☆", () => { item.setMain(span); item.touched.add("places"); actions.changed(); });
    star.title = n === item.main ? "派人去的地方" : "设为派人去的地方";
    const remove = quietButton("chip-button", "×", () => { item.removePlace(span); actions.changed(); });
    remove.setAttribute("aria-label", "去掉这个地点");
    chip.append(star, node("span", "", item.points.slice(...span).join("")), remove);
    value.append(chip);
  });
  if (item.places.length === 0) value.append(node("span", "text-secondary", "没有。在上面选中文字，再按 L。"));
  return row;
}

function partsField(item, actions) {
  const { row, value } = field("件数", "P");
  value.append(node("span", "", `${item.splits.length + 1} 件`));
  value.append(quietButton("btn btn-sm btn-outline-secondary", item.splitting ? "拆好了" : "拆分", () => { item.splitting = !item.splitting; actions.changed(); }));
  return row;
}
