// The report on one model: compare, promote, override; the slider that says how many messages a person would look at.
import { attempt, getJson, postJson, tell } from "../staff/net.js";
import { ask } from "./ask.js";

const byId = (id) => document.getElementById(id);
const { version } = byId("model").dataset;
const base = `/studio/models/${version}`;

async function followComparison() {
  const line = byId("job-line");
  line.hidden = false;
  for (;;) {
    await new Promise((done) => setTimeout(done, 1000));
    const state = await getJson("/studio/models/state").catch(() => null);
    const job = state?.job;
    if (!job) continue;
    if (job.ended) {
      if (job.state === "done") location.reload();
      else line.textContent = job.problem || "对比没有做完。";
      return;
    }
    line.textContent = `${job.step || "等待开始"}（${job.percent}%）`;
  }
}

byId("compare")?.addEventListener("click", async (event) => {
  event.currentTarget.disabled = true;
  if (await attempt(() => postJson(`${base}/compare`))) await followComparison();
  else event.target.disabled = false;
});

async function promote(question, body) {
  const reason = await ask(question);
  if (reason === null) return;
  if (await attempt(() => postJson(`${base}/promote`, { reason, ...body }))) location.href = "/studio/models";
}

byId("promote")?.addEventListener("click", () => promote({
  title: `用 ${version} 替换正在使用的模型？`, text: "几秒内所有进程换上它，正在进行的对话不受影响；不合适随时可以退回。", yes: "上线", reason: "为什么上线",
}, {}));
byId("override")?.addEventListener("click", () => promote({
  title: "没有达到门槛，仍然上线？", text: "这会降低已经达到的水平，由您负责。请写清楚理由，它会留在历史里。", yes: "强制上线", reason: "理由（必填）", least: 10, danger: true,
}, { override: true }));

for (const button of document.querySelectorAll(".heat-choice")) {
  button.addEventListener("click", () => {
    for (const other of document.querySelectorAll(".heat-choice")) {
      const chosen = other === button;
      other.classList.toggle("active", chosen);
      other.setAttribute("aria-pressed", chosen);
      byId(`heat-${other.dataset.shows}`).hidden = !chosen;
    }
  });
}

for (const opener of document.querySelectorAll(".change-open")) {
  opener.addEventListener("click", (event) => {
    event.preventDefault();
    opener.textContent = opener.closest(".change").classList.toggle("open") ? "收起" : "展开";
  });
}

for (const button of document.querySelectorAll(".item-retire")) {
  button.addEventListener("click", async () => {
    const sure = await ask({ title: "这条不再作考题？", text: "以后的对比不再包括它。已经做过的这份对比不变，可以重新对比。", yes: "不再用" });
    if (sure === null || !(await attempt(() => postJson("/studio/models/tests/retire", { id: Number(button.dataset.id) })))) return;
    tell("已经从考题里去掉，重新对比后生效");
    button.closest(".change").remove();
  });
}

const slider = byId("slider");
if (slider) {
  const facts = JSON.parse(slider.dataset.facts);
  const [threshold, perDay] = [byId("threshold"), byId("per-day")];
  const shares = (coverage, step) => {
    const [kept, right] = coverage[step];
    return { kept: kept / coverage[0][0], right: kept ? right / kept : 1 };
  };
  const draw = () => {
    const step = Number(threshold.value);
    const daily = Math.max(1, Number(perDay.value) || 1);
    const now = shares(facts.new, step);
    const filed = Math.round(now.kept * daily);
    byId("threshold-value").textContent = `${step}%`;
    byId("to-person").textContent = daily - filed;
    byId("to-file").textContent = filed;
    byId("wrong").textContent = Math.round(filed * (1 - now.right));
    if (facts.old.length && byId("old-says")) {
      const before = shares(facts.old, step);
      const earlier = Math.round(before.kept * daily);
      byId("old-says").textContent = `同样的界线，正在使用的模型：${daily - earlier} 件交给人看，自动归类的里面大约 ${Math.round(earlier * (1 - before.right))} 件会归错。`;
    }
    const x = facts.width * now.kept;
    const y = facts.height * (1 - (Math.max(now.right, 0.5) - 0.5) * 2);
    byId("spot").setAttribute("cx", x);
    byId("spot").setAttribute("cy", y);
    byId("spot-line").setAttribute("x1", x);
    byId("spot-line").setAttribute("x2", x);
  };
  threshold.value = Math.round(facts.start * 100);
  perDay.value = facts.perDay;
  threshold.addEventListener("input", draw);
  perDay.addEventListener("input", draw);
  if (facts.new.length) draw();
}

if (!byId("job-line").hidden) followComparison();
