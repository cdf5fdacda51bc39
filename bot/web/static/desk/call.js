// One call: waits for news of it, shows what changed, files it. The form, the talk and the right column have files of their own.
import { Refused, attempt, getJson, postJson, tell } from "../staff/net.js";
import { setUpAside, showAside } from "./aside.js";
import { loadCategories } from "./category.js";
import { setUpKeys } from "./keys.js";
import { collect, edit, flush, focusField, setUpSheet, showForm } from "./sheet.js";
import { markWords, showTurns } from "./talk.js";

const root = document.getElementById("call");
const url = root.dataset.url;
const byId = (id) => document.getElementById(id);
const READING = { none: "等待对话", working: "正在识别…", ready: "识别完成", slow: "识别有点慢", away: "识别暂不可用" };

let state = null;
let active = 0;
let asked = 0;
let warned = "";
let filing = false;

// -- showing ------------------------------------------------------------------------------------------------------------

const older = (next) => {
  const [version, serial] = next.token.split(".").map(Number);
  const [had, read] = state.token.split(".").map(Number);
  return version < had || (version === had && serial < read);
};

function show(next) {
  if (state && older(next)) return; // an answer that was overtaken by a newer one
  const fresh = state === null;
  state = next;
  active = Math.min(active, Math.max(state.forms.length - 1, 0));
  showCall();
  showTurns(state.turns);
  if (state.forms.length) {
    const locked = state.call.state !== "open";
    showForm(state.forms[active], active, { fresh, locked });
    showTabs();
    showBanner();
    showQuestions();
    showAside(state.forms[active], active, state.turns.length, locked);
  }
  if (state.call.state !== "open") showDone();
}

function showCall() {
  const { call, reading } = state;
  const began = new Date(call.started_at).toLocaleTimeString("zh-CN", { hour: "2-digit", minute: "2-digit" });
  const phase = { filed: "已登记", dropped: "不立单" }[call.state] ?? (call.ended ? "已挂断" : "通话中");
  const target = byId("call-state");
  target.replaceChildren();
  const badge = document.createElement("span");
  badge.className = phase === "通话中" ? "badge badge-good" : "badge badge-quiet";
  badge.textContent = phase;
  target.append(badge, `${call.origin} · ${began} · ${state.turns.length} 轮`);
  if (!call.username && call.state === "open") {
    const take = document.createElement("button");
    take.type = "button";
    take.className = "btn btn-sm btn-primary";
    take.textContent = "接手";
    take.addEventListener("click", async () => {
      const taken = await attempt(() => postJson(`${url}/take`));
      if (taken) show(taken);
    });
    target.append(take);
  }
  byId("reading").textContent = reading.note ?? READING[reading.state] ?? "";
  byId("reading").dataset.state = reading.state;
}

function showBanner() {
  const emergency = state.forms.find((form) => form.emergency)?.emergency; // whichever of the appeals it is in
  const { sensitive } = state.forms[active];
  const strip = byId("banner");
  const urgent = strip.querySelector("[data-emergency]");
  const careful = strip.querySelector("[data-sensitive]");
  urgent.hidden = !emergency;
  const text = emergency ? `紧急 · 立即转接 ${emergency.numbers.join("、")}，工单同时登记。请读给来电人：${emergency.say}` : "";
  if (urgent.textContent !== text) urgent.textContent = text;
  careful.hidden = !sensitive.length;
  careful.textContent = sensitive.map((item) => `${item.name}：${item.text}`).join("　");
  careful.title = "看是哪句话";
  careful.onclick = () => markWords(sensitive.flatMap((item) => item.sources), { scroll: true });
  strip.querySelector("[data-quiet]").hidden = Boolean(emergency || sensitive.length);
}

function showQuestions() {
  const { questions } = state.forms[active];
  asked = questions.length ? asked % questions.length : 0;
  const now = byId("ask").querySelector("[data-now]");
  const text = questions[asked]?.text ?? "要问的都有了，可以登记。";
  if (now.textContent !== text) now.textContent = text;
  now.disabled = !questions.length;
  now.onclick = () => focusField(questions[asked].field);
  byId("ask").querySelector("[data-rest]").textContent = questions.length > 1 ? `还有 ${questions.length - 1} 问` : "";
  byId("ask").classList.toggle("is-done", !questions.length);
}

function showTabs() {
  const tabs = byId("tabs");
  const focused = document.activeElement?.parentElement === tabs ? document.activeElement.dataset.tab : null;
  tabs.replaceChildren(
    ...state.forms.map((form, n) => {
      const problem = form.problems.length ? " •" : "";
      const tab = tabButton(`${n + 1}　${form.fields.title.value ?? "（还没有标题）"}${problem}`, n, () => choose(n));
      tab.setAttribute("role", "tab");
      tab.setAttribute("aria-selected", String(n === active));
      tab.setAttribute("aria-controls", "sheet");
      tab.tabIndex = n === active ? 0 : -1;
      return tab;
    }),
  );
  if (state.call.state === "open") {
    if (state.forms.length < 4) tabs.append(tabButton("＋ 另有一件", "more", () => setAppeals(state.forms.length + 1)));
    if (state.forms.length > 1) tabs.append(tabButton("合成一件", "less", () => setAppeals(1)));
    if (state.appeals.set !== null && state.appeals.set !== state.appeals.heard) tabs.append(tabButton("按识别的分", "auto", () => setAppeals(null)));
  }
  if (focused !== null) tabs.querySelector(`[data-tab="${focused}"]`)?.focus();
}

function tabButton(text, name, act) {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.tab = name;
  button.className = typeof name === "number" ? "tab" : "tab tab-more";
  button.textContent = text;
  button.addEventListener("click", act);
  return button;
}

function choose(n) {
  if (!state.forms[n] || n === active) return;
  flush();
  active = n;
  asked = 0;
  show(state);
  focusField("title");
}

async function setAppeals(count) {
  await flush();
  const next = await attempt(() => postJson(`${url}/appeals`, { count }));
  if (!next) return;
  active = Math.min(count === null ? 0 : count - 1, next.forms.length - 1);
  show(next);
  focusField("title");
}

// -- filing -------------------------------------------------------------------------------------------------------------

function remark(text, level = "") {
  byId("remark").textContent = text;
  byId("remark").dataset.level = level;
}

// What an agent should look at once more: said the first time, filed the second.
function warningsLeft() {
  const left = state.forms.flatMap((form, n) => (form.relation?.kind === "merge" ? [] : form.warnings.map((warning) => ({ ...warning, form: n }))));
  const key = JSON.stringify(left);
  if (!left.length || key === warned) return null;
  warned = key;
  return left;
}

async function file(next) {
  if (filing || !state || state.call.state !== "open") return;
  filing = true;
  await flush();
  const left = state.forms.every((form) => !form.problems.length) ? warningsLeft() : null;
  if (left) {
    remark(`${left.map((warning) => warning.text).join("")}再按一次照此登记。`, "warn");
    if (left[0].form !== active) choose(left[0].form);
    focusField(left[0].field);
    filing = false;
    return;
  }
  remark("正在登记…");
  try {
    const answer = await postJson(`${url}/file`, { forms: collect(state.forms) });
    remark("");
    show(answer.state);
    if (next) await takeNext();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    remark(error.message, "problem");
    const first = error.body?.problems?.[0];
    if (first && first.form !== active) choose(first.form);
    if (first) focusField(first.field);
  } finally {
    filing = false;
  }
}

function showDone() {
  root.classList.add("is-done");
  byId("done").hidden = false;
  const list = byId("done-list");
  const texts = state.call.state === "filed" ? state.filed : [];
  byId("done").querySelector("h2").lastChild.textContent = state.call.state === "filed" ? " 已登记" : " 已标为不立单";
  list.replaceChildren(...texts.map(filedItem));
  if (!list.dataset.shown) {
    list.dataset.shown = "1";
    byId("done-next").focus();
  }
}

function filedItem(ticket, n) {
  const item = document.createElement("li");
  const number = document.createElement("b");
  number.className = "number";
  number.textContent = ticket.number;
  const how = { merge: "并入此单", join: `同诉，共 ${ticket.appellants} 人`, alone: "" }[ticket.relation ?? ""] ?? (ticket.appellants > 1 ? `同诉，共 ${ticket.appellants} 人` : "");
  const text = document.createElement("span");
  text.textContent = [ticket.title, ticket.lead, ticket.due && `${ticket.due} 前办结`, how].filter(Boolean).join(" · ");
  item.append(number, text);
  if (how) {
    const undo = document.createElement("button");
    undo.type = "button";
    undo.className = "btn btn-sm btn-outline-secondary";
    undo.textContent = "撤销，单独登记";
    undo.addEventListener("click", async () => {
      const next = await attempt(() => postJson(`${url}/undo`, { form: n }));
      if (next) show(next);
    });
    item.append(undo);
  }
  return item;
}

async function takeNext() {
  const answer = await attempt(() => postJson("/desk/next"));
  if (answer?.url) location.href = answer.url;
  else if (answer) tell("现在没有在等的电话。");
}

async function drop() {
  const dialog = byId("drop-dialog");
  dialog.returnValue = "no";
  dialog.showModal();
  byId("drop-yes").focus();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  if (dialog.returnValue !== "yes") return;
  const answer = await attempt(() => postJson(`${url}/drop`));
  if (answer) location.href = answer.url;
}

// -- news ---------------------------------------------------------------------------------------------------------------

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function follow() {
  while (!state || state.call.state === "open") {
    const asked = performance.now();
    try {
      const next = await getJson(`${url}/state${state ? `?have=${encodeURIComponent(state.token)}` : ""}`);
      if (!next.same) show(next);
      else if (performance.now() - asked < 500) await pause(700); // the server has no room for one more who waits
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.status === 404) return remark(error.message, "problem");
      byId("reading").textContent = "连接中断，正在重连…";
      byId("reading").dataset.state = "away";
      await pause(2000);
    }
  }
}

byId("tabs").addEventListener("keydown", (event) => {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!by || event.altKey || !event.target.matches("[role=tab]")) return;
  event.preventDefault();
  choose((active + by + state.forms.length) % state.forms.length);
  byId("tabs").querySelector("[aria-selected=true]").focus();
});

const note = byId("note-text");
byId("note").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = note.value;
  if (!text.trim()) return;
  const next = await attempt(() => postJson(`${url}/turns`, { text }));
  if (!next) return;
  note.value = "";
  show(next);
});
note.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.ctrlKey || event.isComposing) return;
  event.preventDefault();
  byId("note").requestSubmit();
});

byId("file").addEventListener("click", () => file(false));
byId("file-next").addEventListener("click", () => file(true));
byId("done-next").addEventListener("click", takeNext);
byId("drop").addEventListener("click", drop);
byId("help-open").addEventListener("click", () => byId("help").showModal());

setUpSheet(url, show);
setUpAside(url, show);
setUpKeys({
  file,
  takeNext,
  chooseTab: choose,
  chooseCandidate: (n) => state.forms[active].categories[n] && edit("category", state.forms[active].categories[n].code, true),
  nextQuestion() {
    const { questions } = state.forms[active];
    if (!questions.length) return remark("要问的都有了，可以登记。");
    const here = document.activeElement?.closest("#sheet [data-field]")?.dataset.field;
    if (here === questions[asked]?.field) asked = (asked + 1) % questions.length;
    showQuestions();
    focusField(questions[asked].field);
  },
});
await loadCategories((code) => edit("category", code, true));
follow();
focusField("title");
