// The list of calls: refreshed while it is looked at; opening the next one, a pasted one, a file, a blank one.
import { attempt, getJson, postForm, postJson, tell } from "../staff/net.js";

const EVERY_MS = 3000;
const byId = (id) => document.getElementById(id);

function cell(text, className = "") {
  const td = document.createElement("td");
  td.textContent = text;
  td.className = className;
  return td;
}

function rowOf(call, list) {
  const row = document.createElement("tr");
  row.dataset.id = call.id;
  const link = document.createElement("a");
  link.href = call.url;
  link.className = "stretched-link";
  link.textContent = call.words || "（还没有说话）";
  const words = cell("");
  if (call.urgent) {
    const mark = document.createElement("span");
    mark.className = "badge badge-critical me-2";
    mark.textContent = "紧急";
    words.append(mark);
    row.className = "is-urgent";
  }
  words.append(link);
  const state = cell("", "c-state");
  const badge = document.createElement("span");
  badge.className = call.live ? "badge badge-good" : "badge badge-quiet";
  badge.textContent = call.state;
  state.append(badge);
  row.append(
    cell(call.started, "c-time number"), state, cell(call.caller, "c-caller number"), cell(String(call.turns), "c-turns number"), words,
    cell(list === "others" ? call.owner : call.origin, "c-owner"),
  );
  return row;
}

function show(found) {
  for (const section of document.querySelectorAll("[data-list]")) {
    const key = section.dataset.list;
    const calls = found[key];
    if (key === "others") section.hidden = !calls.length;
    const body = section.querySelector("tbody");
    const focused = document.activeElement?.closest("tr")?.dataset.id;
    body.replaceChildren(...calls.map((call) => rowOf(call, key)));
    section.querySelector("[data-count]").textContent = calls.length;
    section.querySelector("[data-empty]").hidden = calls.length > 0;
    section.querySelector("table").hidden = !calls.length;
    if (focused) body.querySelector(`tr[data-id="${CSS.escape(focused)}"] a`)?.focus();
  }
  byId("filed-today").textContent = found.filed_today;
}

async function refresh() {
  if (!document.hidden) await getJson("/desk/queue").then(show).catch(() => {});
  setTimeout(refresh, EVERY_MS);
}

let going = false; // pressed twice, a blank form would be two

async function go(action, nothing) {
  if (going) return;
  going = true;
  const answer = await attempt(action);
  if (answer?.url) location.href = answer.url; // and stays so: the page is about to change
  else {
    going = false;
    if (answer) tell(nothing);
  }
}

addEventListener("pageshow", () => { going = false; }); // back from the call, as the browser kept this page

const next = () => go(() => postJson("/desk/next"), "现在没有在等的电话。");
const blank = () => go(() => postJson("/desk/calls", { text: "" }));
const dialog = byId("paste-dialog");

function paste() {
  dialog.showModal();
  byId("paste-text").focus();
}

function sendPasted() {
  const text = byId("paste-text").value;
  if (text.trim()) go(() => postJson("/desk/calls", { text }));
  else tell("还没有贴文字。", { problem: true });
}

function sendFile(file) {
  const form = new FormData();
  form.append("file", file);
  go(() => postForm("/desk/calls", form));
}

byId("next").addEventListener("click", next);
byId("blank").addEventListener("click", blank);
byId("paste").addEventListener("click", paste);
byId("paste-cancel").addEventListener("click", () => dialog.close());
byId("paste-send").addEventListener("click", sendPasted);
byId("upload").addEventListener("click", () => byId("file").click());
byId("file").addEventListener("change", (event) => {
  if (event.target.files[0]) sendFile(event.target.files[0]);
  event.target.value = "";
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) sendFile(event.dataTransfer.files[0]);
});
document.addEventListener("keydown", (event) => {
  if (dialog.open) {
    if (event.ctrlKey && event.key === "Enter") sendPasted();
    return;
  }
  const action = event.altKey && { KeyN: next, KeyV: paste, KeyU: () => byId("file").click(), KeyB: blank }[event.code];
  if (!action) return;
  event.preventDefault();
  action();
});

refresh();
byId("next").focus();
