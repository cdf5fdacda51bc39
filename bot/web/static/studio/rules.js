// The rules page: the whole content is edited here, previewed against last month's tickets, and saved as a new version.
import { attempt, getJson, postJson, tell } from "../staff/net.js";

const facts = JSON.parse(document.getElementById("rules").dataset.facts);
const saved = JSON.stringify(facts.content);
let content = JSON.parse(saved);

const node = (tag, props = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), props);
  made.append(...children);
  return made;
};

// Names as they are chosen from the lists: "010301 路灯照明 · 城乡建设", prefixes likewise.
const allCategories = () => [...facts.categories, ...content.categories.filter((row) => !facts.categories.some((c) => c.code === row.code))];
const nameOf = (code) => {
  const leaf = allCategories().find((row) => row.code.startsWith(code));
  return leaf ? leaf.path.slice(0, code.length / 2).join(" > ") : code;
};
const codeIn = (text) => text.trim().split(" ")[0];
const departmentOf = (role) => facts.departments.find((row) => row.role === role)?.name ?? role;

function fillLists() {
  const option = (code) => node("option", { value: `${code} ${nameOf(code)}` });
  const prefixes = (size) => [...new Set(allCategories().map((row) => row.code.slice(0, size)))];
  document.getElementById("leaf-list").replaceChildren(...prefixes(6).map(option));
  document.getElementById("parent-list").replaceChildren(...prefixes(4).map(option));
  document.getElementById("any-list").replaceChildren(...[2, 4, 6].flatMap(prefixes).map(option));
}

function fillSelect(form, name, rows, blank) {
  const select = document.querySelector(`[data-add="${form}"] [name="${name}"]`);
  const options = rows.map(([value, label]) => node("option", { value, textContent: label }));
  select.replaceChildren(...(blank ? [node("option", { value: "", textContent: blank })] : []), ...options);
}

const same = (names) => names.map((name) => [name, name]);
fillSelect("places", "kind", same(facts.kinds));
fillSelect("places", "district", same(facts.districts), "区县");
fillSelect("routes", "lead", facts.departments.map((row) => [row.role, row.name]), "主办部门");
fillSelect("routes", "co", facts.departments.map((row) => [row.role, row.name]), "没有协办");
fillSelect("limits", "request_type", same(facts.request_types));
fillSelect("limits", "urgency", same(facts.urgencies));
document.getElementById("limits-now").replaceChildren(
  ...facts.request_types.map((kind) => node("p", { className: "mb-1", textContent:
    `${kind}：${facts.limits.filter((row) => row.request_type === kind).map((row) => `${row.urgency} ${row.stated}`).join("，")}` })),
);

const rows = {
  words: () => Object.entries(content.words).map(([code, words]) => ({ head: nameOf(code), text: words.join(" "), drop: () => delete content.words[code] })),
  places: () => content.places.map((row, at) => ({
    head: row.name,
    text: [row.kind, row.district, row.street, row.aliases && `又叫 ${row.aliases.replaceAll("|", "、")}`, row.lat && `${row.lat}, ${row.lng}`].filter(Boolean).join(" · "),
    drop: () => content.places.splice(at, 1),
  })),
  categories: () => content.categories.map((row, at) => ({ head: `${row.code} ${row.name}`, text: nameOf(row.code.slice(0, 4)), drop: () => content.categories.splice(at, 1) })),
  routes: () => Object.entries(content.routes).map(([code, route]) => ({
    head: nameOf(code),
    text: `${departmentOf(route.lead)}${route.co?.length ? `，协办 ${route.co.map(departmentOf).join("、")}` : ""}`,
    drop: () => delete content.routes[code],
  })),
  limits: () => content.limits.map((row, at) => ({
    head: `${row.request_type} · ${row.urgency}`,
    text: row.hours ? `${row.hours} 小时` : `${row.workdays} 个工作日`,
    drop: () => content.limits.splice(at, 1),
  })),
};

const add = {
  words(form) {
    const code = codeIn(form.leaf.value);
    if (!allCategories().some((row) => row.code === code)) return "请从列表里选一个三级类别";
    const words = form.words.value.split(/[\s、，,]+/).filter(Boolean);
    content.words[code] = [...new Set([...(content.words[code] ?? []), ...words])];
  },
  places(form) {
    content.places.push(Object.fromEntries(["name", "kind", "district", "street", "aliases", "lat", "lng"].map((name) => [name, form.elements[name].value.trim()])));
  },
  categories(form) {
    const parent = codeIn(form.parent.value);
    const siblings = allCategories().filter((row) => row.code.startsWith(parent) && parent.length === 4);
    if (siblings.length === 0) return "请从列表里选一个二级类别";
    const used = new Set(siblings.map((row) => Number(row.code.slice(4))));
    const free = [...Array(98).keys()].map((n) => n + 1).find((n) => !used.has(n));
    const name = form.elements.name.value.trim();
    content.categories.push({ code: `${parent}${String(free).padStart(2, "0")}`, name, path: [...siblings[0].path.slice(0, 2), name] });
  },
  routes(form) {
    const code = codeIn(form.code.value);
    if (!allCategories().some((row) => row.code.startsWith(code)) || !/^\d+$/.test(code)) return "请从列表里选一个类别";
    content.routes[code] = { lead: form.lead.value, co: form.co.value ? [form.co.value] : [] };
  },
  limits(form) {
    const [request_type, urgency] = [form.request_type.value, form.urgency.value];
    content.limits = content.limits.filter((row) => row.request_type !== request_type || row.urgency !== urgency);
    content.limits.push({ request_type, urgency, [form.unit.value]: Number(form.value.value) });
  },
};

function draw() {
  for (const [kind, list] of Object.entries(rows)) {
    const found = list();
    document.querySelector(`[data-count="${kind}"]`).textContent = found.length || "";
    document.querySelector(`[data-list="${kind}"]`).replaceChildren(
      ...(found.length ? found.map((row) => drawRow(row)) : [node("p", { className: "empty py-3 mb-0", textContent: "还没有添加。" })]),
    );
  }
  fillLists();
  const changed = JSON.stringify(content) !== saved;
  document.getElementById("changes").textContent = changed ? "有改动，还没有保存。" : "没有改动。";
  for (const id of ["preview", "save"]) document.getElementById(id).disabled = !changed;
}

function drawRow(row) {
  const drop = node("button", { type: "button", className: "btn btn-sm btn-link text-danger ms-auto p-0", textContent: "删除" });
  drop.setAttribute("aria-label", `删除 ${row.head}`);
  drop.addEventListener("click", () => { row.drop(); draw(); });
  return node("div", { className: "rules-row" }, node("strong", { textContent: row.head }), node("span", { textContent: row.text }), drop);
}

for (const form of document.querySelectorAll("[data-add]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const problem = add[form.dataset.add](form);
    if (problem) return tell(problem, { problem: true });
    form.reset();
    form.querySelector("input, select").focus();
    document.getElementById("effects").replaceChildren();
    draw();
  });
}

document.querySelector('[data-add="words"]').leaf.addEventListener("change", async (event) => {
  const code = codeIn(event.target.value);
  const now = document.getElementById("shipped-words");
  now.textContent = "";
  if (!facts.categories.some((row) => row.code === code)) return;
  const answer = await getJson(`/studio/rules/words/${code}`).catch(() => null);
  now.textContent = answer?.words.length ? `系统已有：${answer.words.slice(0, 40).join("、")}……` : "";
});

document.querySelector('[data-add="routes"]').code.addEventListener("change", (event) => {
  const code = codeIn(event.target.value);
  const known = [6, 4, 2].map((size) => code.slice(0, size)).find((prefix) => facts.routing[prefix]);
  document.getElementById("route-now").textContent = known ? `现在派给：${departmentOf(facts.routing[known].lead)}` : "";
});

function drawEffects(answer) {
  const list = answer.effects.map((effect) => node("div", { className: "rules-effect" },
    node("p", { className: "mb-1" }, node("strong", { textContent: `${effect.title}：${effect.count} 件` })),
    ...(effect.note ? [node("p", { className: "small mb-1", textContent: effect.note })] : []),
    ...effect.examples.map((row) => node("p", { className: "small text-secondary mb-1", textContent: `${row.title}：${row.change}` }))));
  const looked = `看了最近 ${answer.days} 天的 ${answer.looked_at} 件诉求。`;
  document.getElementById("effects").replaceChildren(
    node("p", { className: "small text-secondary", textContent: answer.effects.length ? looked : `${looked}没有一件会因此改变。` }), ...list);
}

document.getElementById("preview").addEventListener("click", async (event) => {
  event.target.disabled = true;
  document.getElementById("effects").replaceChildren(node("p", { className: "text-secondary", textContent: "正在比较上个月的诉求……" }));
  const answer = await attempt(() => postJson("/studio/rules/preview", { content }));
  event.target.disabled = false;
  if (answer) drawEffects(answer);
  else document.getElementById("effects").replaceChildren();
});

document.getElementById("save").addEventListener("click", async (event) => {
  const save = event.currentTarget;
  save.disabled = true;
  const answer = await attempt(() => postJson("/studio/rules", { content, version: facts.version, note: document.getElementById("note").value }));
  save.disabled = false;
  if (answer) location.reload();
});

for (const button of document.querySelectorAll("[data-restore]")) {
  button.addEventListener("click", async () => {
    const answer = await attempt(() => getJson(`/studio/rules/versions/${button.dataset.restore}`));
    if (!answer) return;
    content = answer.content;
    document.getElementById("note").value = `改回第 ${button.dataset.restore} 版`;
    tell("已放回这一版的内容，看过以后请保存。");
    draw();
  });
}

window.addEventListener("beforeunload", (event) => {
  if (JSON.stringify(content) !== saved && !document.activeElement?.matches("#save")) event.preventDefault();
});
draw();
