// The chat page: what a tap, a key or the clock does. Drawing is in view.js, the network in net.js.
import { api, newId } from "./net.js";
import { shrink } from "./picture.js";
import { Log } from "./view.js";
import { choosePhotos, locate, openWeChat, previewOf, upload } from "./wechat.js";

const POLL_EVERY_MS = 4000;
const POLL_WITH_PERSON_MS = 1500; // a person types while the resident waits
const POLL_AT_MOST_MS = 30000;
const RETRY_AFTER_MS = 1500;
const MAX_PICTURES = 6;
const UNSENT = "minsheng-unsent";

const byId = (id) => document.getElementById(id);
const chat = document.querySelector(".chat");
const { baseUrl, assistant } = chat.dataset;
const maxText = Number(chat.dataset.maxText);
const [input, panel, plus, toast, counter] = ["text", "panel", "plus", "toast", "counter"].map(byId);

let skew = 0; // this device's clock may be wrong; stamps follow the server's
const log = new Log(byId("log"), { baseUrl, assistant, toNewest: byId("to-newest"), clock: () => Date.now() + skew });

let phone = { canLocate: false, canChoose: false }; // by way of WeChat
const phoneKnown = chat.dataset.jssdk ? openWeChat(chat.dataset.jssdk).then((found) => { phone = found ?? phone; }) : Promise.resolve();

// -- unsent messages survive a reload ---------------------------------------------------------------------------------

const unsent = {
  all() { try { return JSON.parse(sessionStorage.getItem(UNSENT) ?? "[]"); } catch { return []; } },
  write(list) { try { sessionStorage.setItem(UNSENT, JSON.stringify(list)); } catch { /* private window: kept on screen only */ } },
  keep(message) { this.write([...this.all().filter((other) => other.message_id !== message.message_id), message]); },
  drop(message) { this.write(this.all().filter((other) => other.message_id !== message.message_id)); },
};

// -- sending ----------------------------------------------------------------------------------------------------------

let queue = Promise.resolve(); // one after the other: turns keep the order they were said in
let waiting = 0;

function enqueue(node, deliver) {
  log.sending(node);
  waiting += 1;
  log.showTyping();
  queue = queue.then(deliver).finally(() => {
    waiting -= 1;
    if (!waiting) log.hideTyping();
  });
}

function say(text, extra = {}) {
  const message = { text, message_id: newId(), ...extra };
  sendMessage(message, log.add({ sender: "resident", text: shownText(message) }, { follow: true }));
}

const SCANNED = "（扫了二维码）";
const shownText = ({ text, location, scene }) =>
  text || (scene && SCANNED) || `位置：${location.label || `北纬 ${location.lat.toFixed(5)}，东经 ${location.lng.toFixed(5)}`}`;

function sendMessage(message, node) {
  unsent.keep(message);
  enqueue(node, async () => {
    const answer = await twice(() => api.say(message));
    if (answer.ok) unsent.drop(message);
    settle(answer, node, () => sendMessage(message, node), () => unsent.drop(message));
  });
}

function sendPicture(blob, node, messageId) {
  enqueue(node, async () => settle(await twice(() => api.picture(messageId, blob)), node, () => sendPicture(blob, node, messageId)));
}

// A hiccup of a mobile network is tried over before anybody is bothered with it.
async function twice(send) {
  const answer = await send();
  if (answer.status !== 0 || !navigator.onLine) return answer;
  await new Promise((resolve) => setTimeout(resolve, RETRY_AFTER_MS));
  return send();
}

// The same message id goes out again on 重发, so the server never files anything twice.
function settle({ ok, status, body, now }, node, retry, giveUp = () => {}) {
  setOffline(status === 0);
  if (ok) {
    noteTime(now);
    log.sent(node, body.user_item.id);
    newestId = body.user_item.id;
    showPerson(body.person);
    if (body.items.length) showItems(body.items); else body.messages.forEach(showPassing);
    return;
  }
  const final = [400, 403, 413].includes(status);
  if (final) giveUp();
  log.failed(node, final ? body.error ?? "这条没有发出去" : status === 0 ? "没发出去，请检查网络" : "没发出去", final ? null : retry);
  (body.messages ?? []).forEach(showPassing);
}

const showPassing = (message) => log.add({ sender: "bot", ...message });

// -- receiving --------------------------------------------------------------------------------------------------------

let newestId = "";
let pollTimer = 0;
let pollEvery = POLL_EVERY_MS;

function showItems(items, options) {
  for (const item of items) {
    if (log.has(item.id)) continue; // a poll repeats a little of the past
    log.add(item, options);
    newestId = item.id;
  }
}

function noteTime(now) { if (Number.isFinite(now)) skew = now - Date.now(); }

async function poll() {
  clearTimeout(pollTimer);
  if (document.hidden) return;
  if (!waiting) {
    const asked = newestId;
    const answer = await api.items(asked);
    setOffline(answer.status === 0);
    if (answer.ok) showPerson(answer.body.person);
    pollEvery = answer.ok ? (person ? POLL_WITH_PERSON_MS : POLL_EVERY_MS) : Math.min(pollEvery * 2, POLL_AT_MOST_MS);
    // What the resident said meanwhile is on the screen without its id: such an answer would show it twice.
    if (answer.ok && !waiting && asked === newestId) showItems(answer.body.items);
  }
  clearTimeout(pollTimer);
  pollTimer = setTimeout(poll, pollEvery);
}

async function start() {
  const answer = await api.items("");
  noteTime(answer.now);
  setOffline(answer.status === 0);
  const items = answer.ok ? answer.body.items : [];
  if (answer.ok) showPerson(answer.body.person);
  if (items.length) showItems(items, { follow: true }); else showWelcome();
  for (const message of unsent.all()) sendMessage(message, log.add({ sender: "resident", text: shownText(message) }, { follow: true }));
  tellScene();
  // Only what comes from now on is read out.
  requestAnimationFrame(() => log.root.setAttribute("aria-busy", "false"));
  pollTimer = setTimeout(poll, POLL_EVERY_MS);
}

// The page was opened by a printed code. Told once: a reload of the page is no second scan.
function tellScene() {
  if (!chat.dataset.scene) return;
  // WeChat checks its signature against the address that the page has at that moment.
  phoneKnown.finally(() => history.replaceState(null, "", location.pathname));
  say("", { kind: "scene", scene: chat.dataset.scene });
}

function showWelcome() {
  const text = [...byId("welcome").querySelectorAll("p")].map((paragraph) => paragraph.textContent).join("\n\n");
  const chips = [...byId("examples").content.querySelectorAll("button")];
  log.add({ sender: "bot", text, buttons: chips.map((chip) => ({ title: chip.textContent, payload: chip.dataset.payload })) });
  log.toTop();
}

let person = null;

function showPerson(name) {
  if ((name ?? null) === person) return;
  person = name ?? null;
  const line = byId("person-here");
  line.hidden = !person;
  line.textContent = person ? `工作人员 ${person} 正在和您对话` : "";
  if (person) pollEvery = POLL_WITH_PERSON_MS;
}

function setOffline(off) { byId("offline").hidden = !off; }

// -- writing ----------------------------------------------------------------------------------------------------------

function resize() {
  input.style.height = "auto";
  if (!input.value) return; // a placeholder has no height of its own
  const full = input.scrollHeight + 2;
  input.style.height = `${full}px`;
  input.style.overflowY = full > input.offsetHeight + 2 ? "auto" : "hidden";
}

function count() {
  const length = Array.from(input.value.trim()).length;
  counter.hidden = length < maxText * 0.9;
  counter.classList.toggle("over", length > maxText);
  counter.textContent = length > maxText ? `超出 ${length - maxText} 个字，请分成几条发送` : `还可以写 ${maxText - length} 个字`;
  return length;
}

function submit() {
  const text = input.value.trim();
  if (!text || count() > maxText) return input.focus();
  input.value = "";
  resize();
  count();
  showToast("");
  say(text);
  input.focus();
}

function showToast(text) {
  toast.textContent = text;
  toast.hidden = !text;
}

byId("composer").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
input.addEventListener("input", () => { resize(); count(); showToast(""); });
input.addEventListener("keydown", (event) => {
  // 229 is how Safari reports the Enter that closes an input method's candidate list.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  submit();
});
input.addEventListener("focus", () => openPanel(false));

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-payload]");
  if (!button || !chat.contains(button)) return;
  openPanel(false);
  say(button.dataset.payload);
  // On a phone focus would bring up the keyboard that a tap has just made unnecessary.
  if (event.detail === 0 || matchMedia("(pointer: fine)").matches) input.focus({ preventScroll: true });
});

// -- the + panel ------------------------------------------------------------------------------------------------------

function openPanel(open) {
  panel.hidden = !open;
  plus.setAttribute("aria-expanded", String(open));
}

plus.addEventListener("click", () => {
  openPanel(panel.hidden);
  if (!panel.hidden) panel.querySelector("button").focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || panel.hidden) return;
  openPanel(false);
  plus.focus();
});

const WHERE_INSTEAD = "不要紧，直接打字告诉我地点就行，比如“经开区山阳小区南门”，越细越好找。";
const NO_PLACE = {
  1: `没有得到使用位置的许可。${WHERE_INSTEAD}`,
  2: `手机暂时定不了位。${WHERE_INSTEAD}`,
  3: `定位花的时间太长了。${WHERE_INSTEAD}`,
};

byId("place").addEventListener("click", () => {
  openPanel(false);
  const instead = (code) => {
    showPassing({ text: NO_PLACE[code] ?? NO_PLACE[2] });
    input.focus();
  };
  if (phone.canLocate) return sayPlace(locate, instead);
  if (!navigator.geolocation) return instead(2);
  showToast("");
  navigator.geolocation.getCurrentPosition(
    ({ coords }) => say("", { kind: "location", location: { lat: coords.latitude, lng: coords.longitude, label: "" } }),
    (error) => instead(error.code),
    { enableHighAccuracy: true, timeout: 15000, maximumAge: 60000 },
  );
});

async function sayPlace(find, instead) {
  showToast("");
  const place = await find();
  if (place) say("", { kind: "location", location: { ...place, label: "" } }); else instead(1);
}

byId("photo").addEventListener("click", () => {
  if (!phone.canChoose) return byId("file").click();
  openPanel(false);
  return sayPhotos();
});

async function sayPhotos() {
  showToast("");
  const chosen = (await choosePhotos(MAX_PICTURES)).slice(0, MAX_PICTURES);
  for (const localId of chosen) {
    const preview = await previewOf(localId);
    const node = log.add({ sender: "resident", text: preview ? "" : "（照片）", preview }, { follow: true });
    sendFromWeChat(localId, node, newId());
  }
}

// WeChat takes the photo to its platform, from where the service fetches it; one after the other, because it refuses two at once.
function sendFromWeChat(localId, node, messageId) {
  enqueue(node, async () => {
    const mediaId = await upload(localId);
    const answer = mediaId ? await twice(() => api.wechatPicture(messageId, mediaId)) : { ok: false, status: 0, body: {}, now: NaN };
    settle(answer, node, () => sendFromWeChat(localId, node, messageId));
  });
}

byId("file").addEventListener("change", async (event) => {
  const files = [...event.target.files];
  event.target.value = "";
  openPanel(false);
  showToast(files.length > MAX_PICTURES ? `一次最多发 ${MAX_PICTURES} 张，先发前 ${MAX_PICTURES} 张。` : "");
  for (const file of files.slice(0, MAX_PICTURES)) {
    const blob = await shrink(file);
    if (!blob) { showToast("有一张照片打不开，请换成 JPG 或 PNG 格式再试。"); continue; }
    const node = log.add({ sender: "resident", text: "", preview: URL.createObjectURL(blob) }, { follow: true });
    sendPicture(blob, node, newId());
  }
});

// -- the page ---------------------------------------------------------------------------------------------------------

document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
addEventListener("online", () => { setOffline(false); pollEvery = POLL_EVERY_MS; poll(); });
addEventListener("offline", () => setOffline(true));
document.addEventListener("minsheng:big", () => { resize(); log.toBottom(); });
// iOS lays the keyboard over the page: the page keeps to what is still visible.
visualViewport?.addEventListener("resize", () => {
  document.documentElement.style.setProperty("--visible-height", `${visualViewport.height}px`);
});

start();
