// The batch page: sends the file, starts the job, and keeps the list of jobs up to date while one is under way.
import { attempt, getJson, postJson } from "../staff/net.js";
import { sendFile } from "../staff/upload.js";

const list = document.getElementById("batch-jobs");
const template = document.getElementById("job-template");
const badges = { waiting: "badge-quiet", running: "badge-urgent", done: "badge-good", failed: "badge-critical", cancelled: "badge-quiet" };
let jobs = JSON.parse(list.dataset.jobs);

function row(job) {
  const node = template.content.cloneNode(true).firstElementChild;
  const part = (name) => node.querySelector(name);
  part(".job-name").textContent = job.name;
  part(".job-state").textContent = job.state_name;
  part(".job-state").classList.add(badges[job.state]);
  part(".job-when").textContent = `${job.username} · ${job.created}`;
  part(".progress").hidden = job.ended;
  part(".progress-bar").style.width = `${job.percent}%`;
  part(".job-step").textContent = job.ended ? (job.rows != null ? `共 ${job.rows} 行` : "") : job.step || "等待处理";
  part(".job-counts").textContent = job.review.map((item) => `${item.name} ${item.count}`).join(" · ");
  part(".job-cancel").hidden = job.ended;
  part(".job-cancel").action = `/desk/batch/${job.id}/cancel`;
  part(".job-download").hidden = !job.download;
  part(".job-download").href = `/desk/batch/${job.id}/result`;
  part(".job-problem").textContent = job.problem || "";
  const details = part(".job-problems");
  details.hidden = job.problems.length === 0;
  details.querySelector("summary").textContent = `${job.problems.length} 行没有读成`;
  details.querySelector("ul").replaceChildren(
    ...job.problems.map((text) => Object.assign(document.createElement("li"), { textContent: text })),
  );
  return node;
}

function draw() {
  if (jobs.length === 0) {
    list.innerHTML = '<p class="empty mb-0">还没有任务。上传一个文件，就能在这里看到进度。</p>';
    return;
  }
  list.replaceChildren(...jobs.map(row));
}

async function refresh() {
  const open = jobs.filter((job) => !job.ended);
  if (open.length === 0) return;
  const answer = await getJson(`/desk/batch/state?${open.map((job) => `job=${job.id}`).join("&")}`).catch(() => null);
  if (!answer) return;
  const fresh = new Map(answer.jobs.map((job) => [job.id, job]));
  jobs = jobs.map((job) => fresh.get(job.id) ?? job);
  draw();
}

document.getElementById("batch-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const [button, input, bar] = ["batch-send", "batch-file", "upload-progress"].map((id) => document.getElementById(id));
  button.disabled = true;
  bar.hidden = false;
  await attempt(async () => {
    const upload = await sendFile(input.files[0], (share) => { bar.firstElementChild.style.width = `${Math.round(share * 100)}%`; });
    const { job } = await postJson("/desk/batch", { upload });
    jobs = [...(await getJson(`/desk/batch/state?job=${job}`)).jobs, ...jobs];
    event.target.reset();
    draw();
  });
  bar.hidden = true;
  button.disabled = false;
});

draw();
setInterval(refresh, 1000);
