// The models page: starts and follows a training, shows what every process really serves, rolls back, deletes.
import { attempt, getJson, postJson, tell } from "../staff/net.js";
import { ask } from "./ask.js";

const byId = (id) => document.getElementById(id);
const root = byId("models");
const badges = { waiting: "badge-quiet", running: "badge-urgent", done: "badge-good", failed: "badge-critical", cancelled: "badge-quiet" };
const stateNames = { waiting: "排队中", running: "进行中", done: "完成", failed: "没有完成", cancelled: "已取消" };
const titles = { train: "训练", compare: "对比" };
let live = JSON.parse(root.dataset.live);

function element(name, text, className = "") {
  return Object.assign(document.createElement(name), { textContent: text, className });
}

function link(href, text) {
  return Object.assign(element("a", text), { href });
}

function drawProcesses() {
  byId("promoted").textContent = live.promoted ?? "还没有模型";
  const ready = live.processes.filter((one) => one.ready).length;
  const badge = byId("serving-badge");
  const all = live.processes.length;
  badge.textContent = all === 0 ? "没有看到服务进程" : ready === all ? `${all} 个进程都在用它` : `${all} 个进程里 ${ready} 个已经换上`;
  badge.className = `badge ${all > 0 && ready === all ? "badge-good" : "badge-urgent"}`;
  byId("processes").replaceChildren(...live.processes.map((one) => {
    const row = document.createElement("tr");
    const model = element("td", one.model || "—", one.ready ? "number" : "number low");
    if (one.problem) model.append(element("div", one.problem, "small"));
    row.append(element("td", one.id.split(":").slice(0, 2).join(" · ")), model, element("td", one.since));
    return row;
  }));
}

function drawSuspicions(found) {
  byId("suspicions").replaceChildren(...found.map((one, number) => {
    const row = document.createElement("li");
    row.append(`${one.sentence}。`);
    if (one.source) {
      const box = Object.assign(document.createElement("input"), { type: "checkbox", id: `leave-${number}`, value: one.source, className: "form-check-input me-1 leave-out" });
      box.addEventListener("change", () => { byId("train-without").hidden = chosen().length === 0; });
      const label = Object.assign(element("label", "这次不用这一批"), { htmlFor: box.id });
      row.append(document.createElement("br"), box, label);
    }
    return row;
  }));
  byId("train-without").hidden = true;
}

const chosen = () => [...document.querySelectorAll(".leave-out:checked")].map((box) => box.value);

function drawResult(job) {
  const line = byId("job-result");
  const version = job.state === "done" ? job.result.version : null;
  line.hidden = !version;
  if (!version) return;
  const verdict = job.result.passed ? "达到上线门槛，" : "没有达到上线门槛，";
  const same = job.result.same ? "数据没有变化，和以前训练的是同一个模型；" : "";
  line.replaceChildren(`${same}模型 ${version} ${verdict}`, link(`/studio/models/${version}`, "看它和正在使用的模型差在哪里"), "。");
}

let drawnSuspicions = 0;
function drawJob() {
  const job = live.job;
  const busy = Boolean(job && !job.ended);
  byId("train").disabled = busy;
  byId("job").hidden = !job;
  if (!job) return;
  const suspicious = job.state === "done" && Array.isArray(job.result.suspicions);
  byId("job-title").textContent = titles[job.kind];
  byId("job-state").textContent = suspicious ? "等您看过再训练" : stateNames[job.state];
  byId("job-state").className = `badge ${suspicious ? "badge-urgent" : badges[job.state]}`;
  byId("job-when").textContent = busy ? (job.seconds === null ? "" : `已用 ${Math.floor(job.seconds / 60)} 分 ${job.seconds % 60} 秒`) : `${job.username} · ${job.finished ?? ""}`;
  const bar = document.querySelector("#job .progress");
  bar.hidden = !busy;
  bar.setAttribute("aria-valuenow", job.percent);
  bar.firstElementChild.style.width = `${job.percent}%`;
  byId("job-step").textContent = busy ? job.step || "等待开始" : "";
  byId("job-cancel").hidden = !busy;
  byId("job-problem").textContent = job.problem ?? "";
  byId("job-suspicions").hidden = !suspicious;
  if (suspicious && drawnSuspicions !== job.id) {
    drawSuspicions(job.result.suspicions);
    drawnSuspicions = job.id;
  }
  drawResult(job);
  const log = byId("job-log");
  if (log.textContent !== job.log) {
    log.textContent = job.log;
    log.scrollTop = log.scrollHeight;
  }
}

function draw() {
  drawProcesses();
  drawJob();
}

async function refresh() {
  const before = live.job;
  const fresh = await getJson("/studio/models/state").catch(() => null);
  if (!fresh) return;
  live = fresh;
  draw();
  // A new model stands in the list below, which the server draws.
  if (before && !before.ended && live.job?.ended && live.job.result.version) location.reload();
}

async function train(body) {
  const started = await attempt(() => postJson("/studio/models/train", body));
  if (started) await refresh();
}

byId("train").addEventListener("click", () => train({}));
byId("train-confirmed").addEventListener("click", () => train({ confirmed: true, leave_out: live.job.left_out }));
byId("train-without").addEventListener("click", () => train({ leave_out: [...live.job.left_out, ...chosen()] }));
byId("job-cancel").addEventListener("click", async (event) => {
  event.target.disabled = true;
  await attempt(() => postJson(`/studio/models/jobs/${live.job.id}/cancel`));
  await refresh();
  event.target.disabled = false;
});

byId("rollback")?.addEventListener("click", async (event) => {
  const version = event.currentTarget.dataset.version;
  const reason = await ask({ title: `退回到 ${version}？`, text: "几秒内所有进程换回它，正在进行的对话不受影响。", yes: "退回", reason: "为什么退回" });
  if (reason === null) return;
  if (await attempt(() => postJson("/studio/models/rollback", { reason }))) location.reload();
});

for (const button of document.querySelectorAll(".model-delete")) {
  button.addEventListener("click", async () => {
    const { version } = button.dataset;
    const sure = await ask({ title: `删除模型 ${version}？`, text: "模型文件会删掉，不能恢复，也不能再退回到它；历史记录保留。", yes: "删除", danger: true });
    if (sure !== null && (await attempt(() => postJson(`/studio/models/${version}/delete`)))) location.reload();
  });
}

for (const button of document.querySelectorAll(".tests-retire")) {
  button.addEventListener("click", async () => {
    const { source, name } = button.dataset;
    const sure = await ask({ title: `不再用“${name}”的考题？`, text: "以后的对比不再包括它们，它们的原话可以参加训练。已经做过的对比不变。", yes: "不再用" });
    if (sure === null) return;
    const done = await attempt(() => postJson("/studio/models/tests/retire", { source }));
    if (done) {
      tell(`${done.count} 条考题不再使用`);
      location.reload();
    }
  });
}

draw();
let ticks = 0;
setInterval(() => { if ((live.job && !live.job.ended) || ++ticks % 3 === 0) refresh(); }, 1000);
