// Conversations: the queue on the left, the talk in the middle. The form on the right is chat-form.js.
import { Refused, attempt, getJson, postJson, tell } from "../staff/net.js";
import { Form } from "./chat-form.js";

const QUEUE_MS = 4000;
const TALK_MS = 1500;

const byId = (id) => document.getElementById(id);
const root = byId("chats");
const chosen = root.dataset.chosen;
const patience = Number(root.dataset.patience);
const base = `/desk/chats/${chosen}`;
const title = document.title;

let skew = 0; // this machine's clock may be wrong; waiting times follow the server's
const now = () => Date.now() + skew;
const noteTime = (at) => { skew = Date.parse(at) - Date.now(); };

function el(tag, className = "", ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

function span(at) {
  const minutes = Math.max(0, Math.floor((now() - Date.parse(at)) / 60000));
  if (minutes < 1) return "刚刚";
  return minutes < 60 ? `${minutes} 分钟` : `${Math.floor(minutes / 60)} 小时 ${minutes % 60} 分`;
}

// -- the queue --------------------------------------------------------------------------------------------------------

let shownQueue = "";

function queueRow(chat) {
  const waits = chat.holder ? (chat.waits_since ? `居民等了 ${span(chat.waits_since)}` : "") : `等待 ${span(chat.opened_at)}`;
  const who = chat.mine ? "我在接" : chat.holder ? `${chat.holder} 在接` : "";
  const link = el("a", "queue-row", el("span", "queue-top", el("span", `reason reason-${chat.reason}`, chat.reason_label), el("span", "waits", waits)));
  link.append(el("span", "words", chat.last_words || "（没有文字）"), el("span", "queue-foot", chat.channel, who ? ` · ${who}` : ""));
  link.href = `/desk/chats/${chat.id}`;
  if (chat.id === chosen) link.setAttribute("aria-current", "true");
  if (chat.mine && chat.waits_since) link.classList.add("calls");
  return el("li", chat.holder && !chat.mine ? "others" : "", link);
}

function showQueue({ chats }) {
  const waiting = chats.filter((chat) => !chat.holder || (chat.mine && chat.waits_since)).length;
  document.title = waiting ? `(${waiting}) ${title}` : title;
  byId("queue-count").hidden = !waiting;
  byId("queue-count").textContent = waiting;
  const drawn = JSON.stringify(chats) + Math.floor(now() / 60000);
  if (drawn === shownQueue) return;
  shownQueue = drawn;
  const focused = document.activeElement?.closest?.(".queue-row")?.getAttribute("href");
  byId("queue").replaceChildren(...(chats.length ? chats.map(queueRow) : [el("li", "empty", "现在没有人等待。")]));
  if (focused) byId("queue").querySelector(`[href="${focused}"]`)?.focus();
}

// A page in the background asks less often, and one that cannot reach the server says so and goes on trying.
async function repeat(every, task) {
  for (;;) {
    try {
      await task();
      byId("offline").hidden = true;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      byId("offline").hidden = error.status !== 0;
      if (error.status === 404 && chosen) return leave("这个会话现在不归您看了。");
    }
    await new Promise((resolve) => setTimeout(resolve, document.hidden ? every * 4 : every));
  }
}

function leave(sentence) {
  tell(sentence, { problem: true, seconds: 3 });
  setTimeout(() => { location.href = "/desk/chats"; }, 1500);
}

repeat(QUEUE_MS, async () => {
  const answer = await getJson("/desk/chats/waiting");
  noteTime(answer.now);
  showQueue(answer);
});

// -- the talk ---------------------------------------------------------------------------------------------------------

const log = byId("log");
const known = new Map();
let chat = null;
let all = false;
let form = null;

const CLOCK = new Intl.DateTimeFormat("zh-CN", { timeZone: "Asia/Shanghai", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const NAMES = { resident: "居民", bot: "助手", staff: "工作人员" };

function bubble(item, pushed) {
  const body = el("div", "bubble", item.text);
  if (item.attachment) {
    const image = el("img");
    image.src = `${base}/pictures/${encodeURIComponent(item.attachment)}`;
    image.alt = "居民发的照片";
    const link = el("a", "", image);
    Object.assign(link, { href: image.src, target: "_blank", rel: "noopener" });
    body.replaceChildren(link);
  }
  const unheard = pushed && item.id.startsWith("n") && !item.heard_at;
  const meta = el("div", "meta", `${NAMES[item.sender]} ${CLOCK.format(Date.parse(item.at))}`, unheard ? " · 等微信送达" : "");
  const node = el("div", `item ${item.sender}`, meta, body);
  node.dataset.id = item.id;
  if (item.buttons?.length) node.append(el("div", "choices", item.buttons.map((button) => button.title).join("　")));
  if (item.sender === "resident" && item.text && !item.attachment) {
    const quote = el("button", "quote btn btn-sm btn-outline-primary", "引用");
    quote.type = "button";
    quote.title = "把这句话带进登记表";
    node.append(quote);
  }
  return node;
}

function showTalk(answer) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  const first = known.size === 0;
  if (first || all) log.replaceChildren();
  if (all) known.clear();
  all = false;
  for (const item of answer.items) {
    const drawn = JSON.stringify(item);
    const before = known.get(item.id);
    if (before === drawn) continue;
    known.set(item.id, drawn);
    const node = bubble(item, answer.pushed);
    const old = before && log.querySelector(`[data-id="${CSS.escape(item.id)}"]`);
    if (old) old.replaceWith(node); else log.append(node);
  }
  if (first && answer.more) {
    const more = el("button", "btn btn-sm btn-outline-secondary older", "更早的对话");
    more.type = "button";
    log.prepend(more);
  }
  if (!known.size) log.replaceChildren(el("p", "empty", "还没有说过话。"));
  if (first || atEnd) log.scrollTop = log.scrollHeight;
}

function showState(next) {
  chat = next;
  const mine = Boolean(chat?.mine);
  byId("take").hidden = mine || Boolean(chat?.holder);
  byId("dismiss").hidden = !chat || Boolean(chat.holder);
  byId("give-back").hidden = byId("close").hidden = byId("write").hidden = !mine;
  log.classList.toggle("mine", mine);
  const waits = chat?.waits_since ? Math.floor((now() - Date.parse(chat.waits_since)) / 60000) : 0;
  const state = byId("talk-state");
  state.textContent = !chat ? "助手在接" : mine ? (chat.waits_since ? `居民等了 ${span(chat.waits_since)}` : "您在接") : chat.holder ? `${chat.holder} 在接` : `${chat.reason_label}，等待 ${span(chat.opened_at)}`;
  state.classList.toggle("late", mine && waits >= Math.max(1, patience - 2));
  if (mine && waits >= Math.max(1, patience - 2)) state.textContent += `，满 ${patience} 分钟会交回助手`;
}

async function refresh() {
  const answer = await getJson(`${base}/messages${all ? "?all=1" : known.size ? "?after=1" : ""}`);
  noteTime(answer.now);
  const held = Boolean(chat?.mine);
  showTalk(answer);
  showState(answer.chat);
  form.show(answer.form, Boolean(answer.chat?.mine));
  if (held && !answer.chat?.mine) tell("这个会话已经不在您手里。", { problem: true });
}

async function act(path, body = {}) {
  const answer = await attempt(() => postJson(`${base}/${path}`, body));
  await attempt(refresh);
  return answer;
}

function buttonFor(id, action) {
  byId(id).addEventListener("click", async (event) => {
    const button = event.currentTarget;
    button.disabled = true;
    await action();
    button.disabled = false;
  });
}

if (chosen) {
  form = new Form({ act, ask: (question) => { byId("text").value = question; byId("text").focus(); } });
  repeat(TALK_MS, refresh);
  buttonFor("take", async () => { if (await act("take")) byId("text").focus(); });
  buttonFor("give-back", async () => {
    await form.flush();
    chat = null; // given away on purpose
    if (await act("give-back")) tell("已交还助手，登记表原样保留。");
  });
  buttonFor("close", async () => { chat = null; if (await act("close")) tell("会话已结束。"); });
  buttonFor("dismiss", async () => { if (await act("dismiss")) tell("已移出等待，助手继续接待。"); });
  byId("write").addEventListener("submit", async (event) => { event.preventDefault(); await write(); });
  byId("text").addEventListener("keydown", (event) => {
    if (event.key === "Escape") return event.target.blur();
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    write();
  });
  log.addEventListener("click", async (event) => {
    if (event.target.closest(".older")) { all = true; return void attempt(refresh); }
    const quote = event.target.closest(".quote");
    if (!quote) return;
    quote.disabled = true;
    await form.flush();
    await act("quote", { message: quote.closest(".item").dataset.id });
    quote.disabled = false;
  });
}

let writing = false;

// What could not be sent stays in the box.
async function write() {
  const box = byId("text");
  const text = box.value.trim();
  if (!text || writing) return;
  writing = true;
  const sent = await attempt(() => postJson(`${base}/write`, { text }));
  writing = false;
  if (sent) box.value = "";
  box.focus();
  await attempt(refresh);
  log.scrollTop = log.scrollHeight;
}

// -- keys -------------------------------------------------------------------------------------------------------------

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || event.target.closest("input, select, textarea")) return;
  const rows = [...document.querySelectorAll(".queue-row")];
  const at = rows.findIndex((row) => row === document.activeElement || (document.activeElement === document.body && row.getAttribute("aria-current")));
  const press = (id) => { const button = byId(id); if (button && !button.hidden) { event.preventDefault(); button.click(); } };
  if (event.key === "j" || event.key === "k") rows[Math.max(0, Math.min(rows.length - 1, at + (event.key === "j" ? 1 : -1)))]?.focus();
  else if (event.key === "t") press("take");
  else if (event.key === "b") press("give-back");
  else if (event.key === "i" && byId("text") && !byId("write").hidden) { event.preventDefault(); byId("text").focus(); }
});
