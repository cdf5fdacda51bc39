// The form in the middle: shows suggestions without ever overwriting what a person types, keeps their changes on the server,
// and knows of every field its words, how sure the model is, and whether a person touched it.
import { Refused, postJson, tell } from "../staff/net.js";
import { currentCode, setCandidates, setCategory } from "./category.js";
import { markWords } from "./talk.js";

const sheet = document.getElementById("sheet");
const SAVE_MS = 350;
const RETRY_MS = 3000;
export const TEXTS = ["title", "summary", "place", "when", "persons", "amount", "name", "phone", "lead"];
const CHOICES = ["request_type", "urgency"];
const FLAGS = ["anonymous", "confidential"];
export const ORDER = ["title", "summary", "category", "request_type", "urgency", "place", "when", "persons", "amount", "name", "phone", "anonymous", "confidential", "lead", "co"];
const box = (name) => sheet.querySelector(`[data-field="${name}"]`);
const metaOf = (name) => sheet.querySelector(`[data-meta="${name}"]`);
const control = (name) => document.getElementById(`f-${name}`);

let url = "";
let form = null;
let number = 0;
let onState = () => {};
let readOnly = false;
const unsaved = new Map(); // "number:field" → value, what the server does not have yet
const key = (name, of = number) => `${of}:${name}`;
let timer = 0;
let sending = Promise.resolve();

export function setUpSheet(callUrl, stateChanged) {
  url = callUrl;
  onState = stateChanged;
  for (const name of TEXTS) wireText(name);
  for (const name of CHOICES) wireChoice(name);
  for (const name of FLAGS) control(name).addEventListener("change", (event) => edit(name, event.target.checked, true));
  wireTokens();
  for (const name of ORDER) wireMeta(name);
  sheet.addEventListener("submit", (event) => event.preventDefault());
  sheet.addEventListener("focusin", (event) => {
    const name = event.target.closest("[data-field]")?.dataset.field;
    if (name && form) markWords(form.fields[name].sources);
  });
}

// -- showing ------------------------------------------------------------------------------------------------------------

export function showForm(next, which, { fresh = false, locked = false } = {}) {
  const changedForm = fresh || which !== number;
  [form, number, readOnly] = [next, which, locked];
  setCandidates(form.categories);
  for (const name of ORDER) showField(name, changedForm);
  showCandidates();
  showPlace();
  document.getElementById("due").textContent = form.due ? `${form.due.text} 前（${form.due.promise}）` : "选好类别和诉求类型后算出";
  for (const element of sheet.querySelectorAll("input, textarea, button")) element.disabled = locked;
  sheet.dataset.anonymous = String(Boolean(valueOf("anonymous")));
}

function showField(name, silent) {
  const entry = form.fields[name];
  const mine = unsaved.has(key(name));
  if (!mine && !box(name).dataset.composing) {
    if (write(name, entry.value) && !silent && !entry.touched) flash(box(name));
  }
  const touched = entry.touched || mine;
  box(name).classList.toggle("is-touched", touched);
  const meta = metaOf(name);
  meta.querySelector("[data-touched]").hidden = !touched;
  meta.querySelector("[data-release]").hidden = !touched;
  const sure = meta.querySelector("[data-sure]");
  const known = !touched && entry.confidence !== null && filled(entry.value);
  sure.hidden = !known;
  if (known) {
    sure.textContent = percent(entry.confidence);
    sure.dataset.level = entry.confidence >= 0.85 ? "high" : entry.confidence >= 0.6 ? "mid" : "low";
    sure.title = "把握";
  }
  showWords(meta.querySelector("[data-words]"), name, entry);
}

function showWords(target, name, entry) {
  const said = [...new Set(entry.sources.map((source) => source.text))];
  const text = said.length ? said.map((words) => `“${words}”`).join(" ") : name === "phone" && entry.suggested && entry.confidence === null ? "来电显示" : "";
  if (target.dataset.text === text) return;
  target.dataset.text = text;
  target.replaceChildren();
  if (!said.length) return target.append(text);
  const link = document.createElement("button");
  link.type = "button";
  link.tabIndex = -1;
  link.textContent = text;
  link.title = `出自：${said.join("；")}（Alt+W）`;
  link.addEventListener("click", () => markWords(form.fields[name].sources, { scroll: true }));
  target.append(link);
}

function showCandidates() {
  const list = document.getElementById("candidates");
  const current = valueOf("category");
  list.replaceChildren(
    ...form.categories.map((candidate, n) => {
      const item = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.tabIndex = -1;
      button.title = candidate.path.join(" / ");
      button.setAttribute("aria-pressed", String(candidate.code === current));
      const bar = document.createElement("span");
      bar.className = "bar";
      bar.style.setProperty("--share", percent(candidate.confidence));
      const text = document.createElement("span");
      text.className = "candidate";
      text.textContent = `${candidate.path[0]} · ${candidate.path.slice(1).join(" / ")}`;
      const share = document.createElement("span");
      share.className = "share number";
      share.textContent = percent(candidate.confidence);
      const index = document.createElement("kbd");
      index.textContent = n + 1;
      button.append(index, text, share, bar);
      button.addEventListener("click", () => edit("category", candidate.code, true));
      item.append(button);
      return item;
    }),
  );
}

function showPlace() {
  const target = document.getElementById("place");
  const { parts, point, among } = form.place;
  target.replaceChildren();
  if (among.length) {
    target.append("同名的不止一处：");
    for (const district of among) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "chip";
      button.textContent = district;
      button.addEventListener("click", () => edit("place", `${district}${valueOf("place")}`, true));
      target.append(button);
    }
    return;
  }
  target.append(parts.join(" › "));
  if (point) target.append(`　${point[0].toFixed(4)}, ${point[1].toFixed(4)}`);
}

function flash(element) {
  element.classList.remove("flash");
  void element.offsetWidth;
  element.classList.add("flash");
}

// Nothing read is certain.
const percent = (confidence) => `${Math.min(99, Math.round(confidence * 100))}%`;
const filled = (value) => value !== null && value !== "" && value !== false && !(Array.isArray(value) && !value.length);

// Puts a value into its control; true when that changed what is seen.
function write(name, value) {
  if (name === "category") {
    const before = currentCode();
    setCategory(value, form.category_path);
    return before !== (value ?? "");
  }
  if (CHOICES.includes(name)) {
    const buttons = [...box(name).querySelectorAll("[role=radio]")];
    const before = buttons.find((button) => button.getAttribute("aria-checked") === "true")?.dataset.value ?? null;
    for (const button of buttons) button.setAttribute("aria-checked", String(button.dataset.value === value));
    const here = buttons.find((button) => button.dataset.value === value) ?? buttons[0];
    for (const button of buttons) button.tabIndex = button === here ? 0 : -1;
    return before !== value;
  }
  if (FLAGS.includes(name)) {
    const changed = control(name).checked !== Boolean(value);
    control(name).checked = Boolean(value);
    return changed;
  }
  if (name === "co") return writeTokens(value ?? []);
  const element = control(name);
  if (element.value === (value ?? "")) return false;
  element.value = value ?? "";
  return true;
}

// -- changing -----------------------------------------------------------------------------------------------------------

const valueOf = (name) => (unsaved.has(key(name)) ? unsaved.get(key(name)) : form.fields[name].value);

export function edit(name, value, now = false) {
  if (readOnly) return;
  unsaved.set(key(name), value);
  if (name === "category" || CHOICES.includes(name) || FLAGS.includes(name) || name === "co" || name === "place") {
    if (name !== "place" || now) write(name, value);
  }
  showField(name, true);
  if (name === "category") showCandidates();
  clearTimeout(timer);
  timer = setTimeout(flush, now ? 0 : SAVE_MS);
}

export function release(name) {
  if (readOnly || !form) return;
  unsaved.delete(key(name));
  sending = sending.then(() => post({ form: number, field: name, release: true })).catch(sayUnsaved);
}

async function post(body) {
  onState(await postJson(`${url}/form`, body));
  document.getElementById("saved").textContent = "";
}

function sayUnsaved(error) {
  if (!(error instanceof Refused)) throw error;
  if (error.status === 422 || error.status === 409) return tell(error.message, { problem: true });
  document.getElementById("saved").textContent = "没有存上，正在重试…";
  setTimeout(flush, RETRY_MS);
}

// Sends what is not on the server yet, one after another; a value typed meanwhile goes again.
export function flush() {
  clearTimeout(timer);
  for (const [where, value] of unsaved) {
    const [of, name] = [Number(where.split(":")[0]), where.split(":")[1]];
    sending = sending
      .then(async () => {
        if (unsaved.get(where) !== value) return;
        const state = await postJson(`${url}/form`, { form: of, field: name, value });
        if (unsaved.get(where) === value) unsaved.delete(where);
        document.getElementById("saved").textContent = "";
        onState(state);
      })
      .catch(sayUnsaved);
  }
  return sending;
}

// Whoever leaves or reloads the page while typing loses nothing: these requests outlive it.
addEventListener("pagehide", () => {
  for (const [where, value] of unsaved) {
    const [of, name] = where.split(":");
    postJson(`${url}/form`, { form: Number(of), field: name, value }, "POST", { keepalive: true }).catch(() => {});
  }
});

// What the page shows of every form, for filing.
export function collect(forms) {
  return forms.map((of, n) => {
    const values = {};
    const touched = [];
    for (const name of ORDER) {
      const mine = unsaved.has(key(name, n));
      values[name] = mine ? unsaved.get(key(name, n)) : of.fields[name].value;
      if (mine || of.fields[name].touched) touched.push(name);
    }
    return { values, touched };
  });
}

// -- controls -----------------------------------------------------------------------------------------------------------

function wireText(name) {
  const element = control(name);
  element.addEventListener("compositionstart", () => { box(name).dataset.composing = "1"; });
  element.addEventListener("compositionend", () => { delete box(name).dataset.composing; edit(name, element.value); });
  element.addEventListener("input", (event) => { if (!event.isComposing) edit(name, element.value); });
  element.addEventListener("change", () => { if (unsaved.has(key(name))) flush(); });
}

function wireChoice(name) {
  const buttons = [...box(name).querySelectorAll("[role=radio]")];
  for (const button of buttons) button.addEventListener("click", () => edit(name, button.dataset.value, true));
  box(name).querySelector(".segments").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || event.altKey || event.ctrlKey) return;
    event.preventDefault();
    const next = buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length];
    edit(name, next.dataset.value, true);
    next.focus();
  });
}

function wireMeta(name) {
  metaOf(name).querySelector("[data-release]").addEventListener("click", () => {
    release(name);
    focusField(name);
  });
  metaOf(name).querySelector("[data-release]").tabIndex = -1;
}

const tokenBox = document.getElementById("co-tokens");
const tokens = () => [...tokenBox.querySelectorAll(".token")].map((token) => token.dataset.name);

function writeTokens(names) {
  if (JSON.stringify(tokens()) === JSON.stringify(names)) return false;
  for (const token of tokenBox.querySelectorAll(".token")) token.remove();
  for (const name of names) {
    const token = document.createElement("span");
    token.className = "token";
    token.dataset.name = name;
    token.append(name);
    const remove = document.createElement("button");
    remove.type = "button";
    remove.tabIndex = -1;
    remove.setAttribute("aria-label", `去掉${name}`);
    remove.textContent = "×";
    remove.addEventListener("click", () => edit("co", tokens().filter((other) => other !== name), true));
    token.append(remove);
    control("co").before(token);
  }
  return true;
}

function wireTokens() {
  const input = control("co");
  const add = () => {
    const name = input.value.trim();
    input.value = "";
    if (name && !tokens().includes(name)) edit("co", [...tokens(), name], true);
  };
  input.addEventListener("change", add);
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.ctrlKey && input.value) {
      event.preventDefault();
      event.stopPropagation();
      add();
    } else if (event.key === "Backspace" && !input.value && tokens().length) {
      edit("co", tokens().slice(0, -1), true);
    }
  });
}

// -- moving -------------------------------------------------------------------------------------------------------------

export function focusField(name) {
  const target = CHOICES.includes(name) ? box(name).querySelector('[role=radio][tabindex="0"]') : control(name);
  target?.focus();
  target?.scrollIntoView({ block: "nearest" });
}

export const currentField = () => document.activeElement?.closest("#sheet [data-field]")?.dataset.field ?? null;

export function step(by) {
  const at = ORDER.indexOf(currentField());
  const next = ORDER[Math.min(Math.max(at + by, 0), ORDER.length - 1)];
  focusField(next);
}

export const sourcesOf = (name) => form?.fields[name]?.sources ?? [];
