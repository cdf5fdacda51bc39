// One import: watched while it works; what columns and labels mean is asked before it starts.
import { attempt, getJson, postJson, tell } from "../staff/net.js";
import { pick } from "./picker.js";

const element = (id) => document.getElementById(id);
const page = element("import");
const base = `/studio/data/imports/${page.dataset.batch}`;
const choices = JSON.parse(page.dataset.choices);
const NOT_MEANT = null;
const LEAVE_OUT = "";
let categories = [];
let names = new Map();
let columns = {};
let told = [];
let shownState = "";

function node(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== "") made.textContent = text;
  return made;
}

async function refresh() {
  const view = await getJson(`${base}/state`).catch(() => null);
  if (!view) return void setTimeout(refresh, 2000);
  const working = Boolean(view.job && !view.job.ended);
  drawHead(view, working);
  const key = `${view.state} ${working} ${view.job?.id}`;
  if (key !== shownState) {
    shownState = key;
    draw(view, working);
  }
  if (working) setTimeout(refresh, 700);
  return undefined;
}

function drawHead(view, working) {
  element("state").textContent = view.state_name;
  element("state").className = `badge ${{ done: "badge-good", failed: "badge-critical", ready: "badge-urgent" }[view.state] ?? "badge-quiet"}`;
  element("working").hidden = !working;
  if (!working) return;
  element("step").textContent = view.job.step || "等待处理";
  element("bar").style.width = `${view.job.percent}%`;
}

function draw(view, working) {
  const trouble = view.job?.problem ?? (view.job?.state === "cancelled" && view.state !== "done" ? "已取消，没有导入任何内容。" : "");
  element("trouble").hidden = working || !trouble;
  element("trouble").textContent = trouble;
  const ended = view.state === "done" || view.state === "withdrawn";
  element("result").hidden = !ended;
  if (ended) drawResult(view);
  element("plan").hidden = working || ended || !view.preview;
  if (!element("plan").hidden) drawPlan(view);
}

function figure(name, count, bad = false) {
  const box = node("div", bad && count ? "bad" : "");
  box.append(node("b", "", String(count)), name);
  return box;
}

function drawResult(view) {
  element("outcome").replaceChildren(...view.outcome.map(({ name, count }) => figure(name, count, name === "有问题")));
  element("problem-box").hidden = view.problem_count === 0;
  element("problem-title").textContent = `${view.problem_count} 行需要看一下`;
  element("problem-list").replaceChildren(...view.problems.map(([row, sentence]) => node("li", "", `第 ${row} 行：${sentence}`)));
  element("withdraw").hidden = view.state !== "done" || !view.labelled;
}

// -- the plan ---------------------------------------------------------------------------------------------------------

function drawPlan(view) {
  const { preview, plan } = view;
  columns = { ...plan.columns };
  element("rows").textContent = `${preview.rows} 行`;
  element("remembered").textContent = preview.remembered ? "按上次同样列名的文件" : "按列名和内容猜的，请核对";
  element("same-file").hidden = !preview.same_file;
  element("again-option").hidden = !preview.same_file;
  if (preview.same_file) element("same-file").textContent = `同一个文件已由 ${preview.same_file.username} 在 ${preview.same_file.at} 导入过。`;
  drawPreview(preview);
  element("recheck").hidden = true;
  drawLabels(preview.check?.unknown ?? []);
  drawCheck(preview.check);
  element(plan.labelled ? "as-labelled" : "as-unlabelled").checked = true;
  drawOptions();
}

function drawPreview(preview) {
  const head = node("tr");
  preview.columns.forEach((column) => {
    const cell = node("th", columns[column.key] ? "used" : "", column.heading || "（没有列名）");
    const select = node("select", "form-select form-select-sm");
    select.setAttribute("aria-label", `${column.heading} 是什么`);
    select.append(new Option("不用", ""), ...choices.roles.map(([role, name]) => new Option(name, role)));
    select.value = columns[column.key] ?? "";
    select.addEventListener("change", () => {
      if (select.value) columns[column.key] = select.value; else delete columns[column.key];
      cell.className = select.value ? "used" : "";
      element("recheck").hidden = false;
      element("start").disabled = true;
    });
    cell.append(select);
    head.append(cell);
  });
  element("preview-head").replaceChildren(head);
  element("preview-body").replaceChildren(...preview.first.map((cells) => {
    const row = node("tr");
    row.append(...cells.map((text) => { const cell = node("td"); cell.append(node("div", "", text)); return cell; }));
    return row;
  }));
}

function drawCheck(check) {
  element("start").disabled = !check;
  if (!check) {
    element("check").replaceChildren(node("p", "text-danger mb-0", "还不知道哪一列是诉求内容，请在上面选。"));
    element("check-problems").replaceChildren();
    element("classes").replaceChildren();
    drawDoubts([], []);
    return;
  }
  const unknown = check.unknown.reduce((sum, one) => sum + one.count, 0);
  element("check").replaceChildren(
    figure("可以导入", check.good ?? 0), figure("标签待对应", unknown, true), figure("有问题", check.problems ?? 0, true),
    ...(check.left_out ? [figure("标签不学习", check.left_out)] : []), ...(check.unplaced ? [figure("地点不在文字里", check.unplaced)] : []),
  );
  element("check-problems").replaceChildren(...check.first_problems.map(([row, sentence]) => node("li", "", `第 ${row} 行：${sentence}`)));
  const copies = check.copies.map(({ row, count, labels, text }) => `第 ${row} 行的话在文件里一字不差地出现 ${count} 次，${labels.map((one) => `标成“${one.name}” ${one.count} 次`).join("，")}：${text}`);
  // A class may hide behind a label that nobody has explained yet.
  const named = check.classes.some((one) => one.name !== "没有类别") && !check.unknown.some((one) => one.field === "category");
  drawDoubts([...(named ? check.doubts : []), ...copies], named ? check.no_rows : []);
  const most = Math.max(1, ...check.classes.map((one) => one.count));
  element("classes").replaceChildren(...check.classes.map(({ name, count }) => {
    const row = node("div", "class-row");
    const meter = node("meter");
    meter.max = most;
    meter.value = count;
    row.append(node("span", "", name), meter, node("span", "", String(count)));
    return row;
  }));
}

function drawDoubts(doubts, noRows) {
  element("doubts").hidden = doubts.length === 0;
  element("doubts").replaceChildren(...doubts.map((sentence) => node("li", "", sentence)));
  element("no-rows").hidden = noRows.length === 0;
  element("no-rows").textContent = `一条也没有的类别：${noRows.join("、")}。`;
}

// -- labels -----------------------------------------------------------------------------------------------------------

function drawLabels(unknown) {
  told = unknown.map((one) => ({ field: one.field, label: one.label, meaning: one.guess ?? NOT_MEANT }));
  element("labels-note").textContent = unknown.length ? "先按名称和内容猜好了，请逐个核对；对应一次，以后都记得。" : "";
  if (unknown.length === 0) {
    element("labels").replaceChildren(node("p", "empty mb-0", "没有，都认识。"));
    return;
  }
  const table = node("table", "table table-sm labels-table mb-0");
  const head = node("thead");
  head.innerHTML = "<tr><th>原标签</th><th class=\"text-end\">行数</th><th>对应为</th><th></th></tr>";
  const body = node("tbody");
  unknown.forEach((one, n) => body.append(labelRow(one, n)));
  table.append(head, body);
  element("labels").replaceChildren(table);
}

function labelRow(one, n) {
  const row = node("tr");
  const name = node("td", "", one.label);
  name.append(" ", node("small", "text-secondary", choices.fields[one.field]));
  const meaning = node("td");
  const out = node("td", "text-end");
  const draw = () => {
    meaning.replaceChildren(meaningControl(one, n, draw));
    const leave = node("button", "btn btn-sm btn-link", told[n].meaning === LEAVE_OUT ? "要学习" : "不学习");
    leave.addEventListener("click", () => { told[n].meaning = told[n].meaning === LEAVE_OUT ? one.guess ?? NOT_MEANT : LEAVE_OUT; draw(); });
    out.replaceChildren(leave);
  };
  row.append(name, node("td", "text-end number", String(one.count)), meaning, out);
  draw();
  return row;
}

function meaningControl(one, n, draw) {
  const { meaning } = told[n];
  if (one.field !== "category") {
    const select = node("select", "form-select form-select-sm");
    const options = one.field === "urgency" ? choices.urgencies : choices.request_types;
    select.append(new Option("没有对应（这些行不导入）", ""), ...options.map((name) => new Option(name, name)));
    select.value = meaning ?? "";
    if (meaning === LEAVE_OUT) return node("span", "text-secondary", "不学习这个标签");
    select.addEventListener("change", () => { told[n].meaning = select.value || NOT_MEANT; });
    return select;
  }
  const text = meaning === LEAVE_OUT ? "不学习这个标签" : meaning === NOT_MEANT ? "没有对应（这些行不导入）" : names.get(meaning) ?? meaning;
  const button = node("button", `btn btn-sm ${meaning ? "btn-outline-primary" : "btn-outline-secondary"}`, text);
  button.addEventListener("click", async () => {
    const code = await pick(categories, { title: `“${one.label}”对应哪一类？`, current: meaning ?? "" });
    if (code) { told[n].meaning = code; draw(); }
  });
  return button;
}

// -- what a person does -----------------------------------------------------------------------------------------------

const labelled = () => element("as-labelled").checked;

function drawOptions() {
  element("twins-option").hidden = !labelled();
  element("labels-card").hidden = !labelled();
  element("most-option").hidden = labelled();
  element("start").textContent = labelled() ? "导入" : "由模型读并送审";
}

for (const radio of document.querySelectorAll("[name=labelled]")) radio.addEventListener("change", drawOptions);

async function act(path, body = {}) {
  const answer = await attempt(() => postJson(`${base}/${path}`, body));
  if (answer) await refresh();
  return answer;
}

element("recheck").addEventListener("click", () => act("columns", { columns }));
element("cancel").addEventListener("click", () => act("cancel").then((done) => done && tell("正在停下……")));
element("withdraw").addEventListener("click", () => {
  if (confirm("撤回后，这次导入的标注不再用于训练。确定吗？")) act("withdraw");
});
element("start").addEventListener("click", () => act("start", {
  labels: told, labelled: labelled(), keep_twins: element("keep-twins").checked, most: Number(element("most").value) || 1000, again: element("again").checked,
}));

async function start() {
  categories = (await attempt(() => getJson("/studio/review/categories")))?.categories ?? [];
  names = new Map(categories.map((one) => [one.code, [...new Set(one.path)].join(" · ")]));
  await refresh();
}

start();
