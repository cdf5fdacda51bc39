// The data page: sends a file, and goes through labels in doubt.
import { attempt, getJson, postJson } from "../staff/net.js";
import { sendFile } from "../staff/upload.js";
import { pick } from "./picker.js";

const element = (id) => document.getElementById(id);
let categories = null;
let watching = null;

function node(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

element("import-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const bar = element("upload-progress");
  element("import-send").disabled = true;
  bar.hidden = false;
  await attempt(async () => {
    const upload = await sendFile(element("import-file").files[0], (share) => { bar.firstElementChild.style.width = `${Math.round(share * 100)}%`; });
    const { batch } = await postJson("/studio/data/imports", { upload });
    location.href = `/studio/data/imports/${batch}`;
  });
  bar.hidden = true;
  element("import-send").disabled = false;
});

// -- labels in doubt --------------------------------------------------------------------------------------------------

async function load() {
  const answer = await attempt(() => getJson("/studio/data/suspects"));
  if (!answer) return;
  drawCounts(answer.counts);
  drawJob(answer.job);
  const list = answer.suspects.map(suspect);
  element("suspect-rows").replaceChildren(...list);
  if (list.length === 0) element("suspect-rows").append(node("p", "empty mb-0", nothing(answer)));
}

function nothing({ job, counts }) {
  if (!job) return "还没有查过。点“查找”，把所有标注互相比对一遍：模型没见过的样子是否另有所属，几乎相同的文字标签是否不同。";
  if (!job.ended) return "正在查找……";
  if (job.problem) return job.problem;
  return counts.decided ? "都处理完了。" : "没有发现疑点。";
}

function drawCounts({ likely, possible, decided }) {
  element("suspect-counts").textContent = `很可能有误 ${likely} · 可疑 ${possible} · 已处理 ${decided}`;
}

function drawJob(job) {
  const running = job && !job.ended;
  element("suspect-find").disabled = Boolean(running);
  element("suspect-step").textContent = running ? `${job.step || "排队"} ${job.percent}%` : job?.finished ? `上次 ${job.finished}` : "";
  clearTimeout(watching);
  if (running) watching = setTimeout(load, 1000);
}

function suspect(one) {
  const box = node("article", "suspect");
  box.append(node("p", "suspect-text", one.text));
  if (one.twin) box.append(node("p", "suspect-twin", `几乎相同的另一条：${one.twin}`));
  const line = node("div", "suspect-line");
  const badge = node("span", one.likely ? "badge badge-critical" : "badge badge-urgent", one.likely ? "很可能有误" : "可疑");
  line.append(badge, node("span", "now", one.label), node("span", "", "→"), node("span", "then", one.suggested_label));
  const actions = node("span", "actions");
  const button = (className, text, action) => {
    const made = node("button", `btn btn-sm ${className}`, text);
    made.addEventListener("click", action);
    actions.append(made);
  };
  button("btn-primary", "改为建议的", () => decide(one, box, { decision: "accept" }));
  button("btn-outline-secondary", "改为别的…", () => other(one, box));
  button("btn-outline-secondary", "原来的对", () => decide(one, box, { decision: "keep" }));
  button("btn-outline-danger", "删去这条标注", () => decide(one, box, { decision: "remove" }));
  line.append(actions);
  box.append(line);
  return box;
}

async function decide(one, box, body) {
  const answer = await attempt(() => postJson(`/studio/data/suspects/${one.id}`, body));
  if (!answer) return load();
  drawCounts(answer.counts);
  const next = box.nextElementSibling;
  box.remove();
  next?.querySelector("button")?.focus({ preventScroll: true });
  return element("suspect-rows").children.length === 0 ? load() : undefined;
}

async function other(one, box) {
  categories ??= (await attempt(() => getJson("/studio/review/categories")))?.categories;
  const code = categories && (await pick(categories, { title: "类别：名称、拼音首字母或编码", current: one.suggested }));
  if (code) decide(one, box, { decision: "accept", category: code });
}

element("suspect-find").addEventListener("click", async () => {
  if (await attempt(() => postJson("/studio/data/suspects/find"))) load();
});

load();
