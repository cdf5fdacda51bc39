// One ticket: showing who spoke, correcting, re-routing, adding. Every answer of the server is a sentence or the page anew.
import { attempt, postJson, tell } from "../staff/net.js";

const ticket = document.getElementById("ticket");
const base = `/desk/tickets/${ticket.dataset.number}`;
const byId = (id) => document.getElementById(id);

// -- who spoke --------------------------------------------------------------------------------------------------------

const reveal = byId("reveal");
const hiddenNow = new Map();
let shown = null;

const PERSONAL = { name: "p-name", phone: "p-phone", description: "description", place: "p-place" };

reveal?.addEventListener("click", async () => {
  if (shown) return hide();
  const person = await attempt(() => postJson(`${base}/reveal`));
  if (!person) return;
  shown = person;
  for (const [name, id] of Object.entries(PERSONAL)) {
    const node = byId(id);
    if (!hiddenNow.has(id)) hiddenNow.set(id, node.cloneNode(true));
    if (person[name]) node.textContent = person[name];
  }
  label("隐藏", "bi-eye-slash", true);
  fillPersonal();
});

function hide() {
  for (const [id, before] of hiddenNow) byId(id).replaceChildren(...before.cloneNode(true).childNodes);
  shown = null;
  label("显示", "bi-eye", false);
}

function label(text, icon, pressed) {
  const mark = document.createElement("i");
  mark.className = `bi ${icon}`;
  mark.setAttribute("aria-hidden", "true");
  reveal.replaceChildren(mark, ` ${text}`);
  reveal.setAttribute("aria-pressed", String(pressed));
}

// -- putting right ----------------------------------------------------------------------------------------------------

const form = byId("correct");
const edit = byId("edit");

// Name and number can be put right only by who has looked at them: an unseen one must not be overwritten by accident.
function fillPersonal() {
  const personal = byId("personal");
  if (!personal || !shown) return;
  personal.hidden = false;
  for (const [name, none] of [["name", "未留姓名"], ["phone", "未留电话"]]) {
    const field = byId(`e-${name}`);
    field.value = field.dataset.was = shown[name] === none ? "" : shown[name];
  }
}

function openForm(open) {
  form.hidden = !open;
  byId("facts").hidden = open;
  edit.setAttribute("aria-expanded", String(open));
  if (open) byId("e-title").focus(); else edit.focus();
}

const codeOf = (text) => text.trim().split(/[\s/]/)[0];

function changes() {
  const values = {};
  for (const field of form.elements) {
    if (!field.name || field.name === "note" || !("was" in field.dataset)) continue;
    const value = field.type === "checkbox" ? field.checked : field.name === "category" ? codeOf(field.value) : field.value.trim();
    const was = field.type === "checkbox" ? field.dataset.was === "1" : field.dataset.was;
    if (value !== was) values[field.name] = value;
  }
  return values;
}

async function send(path, body, button) {
  button.disabled = true;
  const answer = await attempt(() => postJson(`${base}/${path}`, body));
  button.disabled = false;
  if (answer) location.href = answer.address;
}

edit?.addEventListener("click", () => openForm(form.hidden));
byId("cancel-edit")?.addEventListener("click", () => { form.reset(); openForm(false); });
form?.addEventListener("submit", (event) => {
  event.preventDefault();
  const values = changes();
  if (!Object.keys(values).length) return tell("没有改动。");
  send("correct", { ...values, note: byId("e-note").value, seen: ticket.dataset.seen }, event.submitter);
});

byId("reroute")?.addEventListener("submit", (event) => {
  event.preventDefault();
  const { category, lead, reason } = event.target.elements;
  if (!reason.value.trim()) {
    reason.focus();
    return tell("请写一句改派说明。", { problem: true });
  }
  send("reroute", { category: codeOf(category.value), lead: lead.value, reason: reason.value }, event.submitter);
});

byId("supplement")?.addEventListener("submit", (event) => {
  event.preventDefault();
  send("supplement", { note: byId("s-note").value }, event.submitter);
});

// -- keys -------------------------------------------------------------------------------------------------------------

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
  const writing = event.target.closest("input, select, textarea");
  if (event.key === "Escape" && form && !form.hidden) return openForm(false);
  if (writing) return;
  if (event.key === "e" && form) { event.preventDefault(); openForm(true); }
  if (event.key === "u") byId("back").click();
});

// Back to the list as it was, filters and all.
byId("back").addEventListener("click", (event) => {
  if (!document.referrer.startsWith(`${location.origin}/desk/tickets`) || document.referrer.includes(`${base}`)) return;
  event.preventDefault();
  history.back();
});
