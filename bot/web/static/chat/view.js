// Draws the talk. Residents' and bot's words only ever become text nodes; nothing here knows the network.

const GROUP_GAP_MS = 5 * 60 * 1000;
const NEAR_BOTTOM = 80;
const LINK = /https?:\/\/[^\s<>"'，。；！？、（）【】《》“”]+|\/t\/[\w-]{24}/g;
const NUMBER = /(\d{8}-\d{4,6})/;
const RING = /(打[\s\d、或/]*\d)/;
const CALLED = new Set(["110", "119", "120", "12345", "12338", "12355"]);
const FIELD = /^(〔[^〔〕]{1,8}〕)(.*)$/;

export function el(tag, className = "", ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

// -- words ----------------------------------------------------------------------------------------------------------

// https anywhere; this service's own tracking pages also over http, for a pilot without TLS.
function hrefOf(text, baseUrl) {
  let url;
  try { url = new URL(text, location.origin); } catch { return null; }
  const own = [location.origin, new URL(baseUrl, location.origin).origin].includes(url.origin);
  if (own && /^\/t\/[\w-]+$/.test(url.pathname)) return url.pathname;
  return url.protocol === "https:" ? url.href : null;
}

function linked(line, baseUrl) {
  const parts = [];
  let end = 0;
  for (const match of line.matchAll(LINK)) {
    const text = match[0].replace(/[.,;:!?)\]]+$/, "");
    const href = hrefOf(text, baseUrl);
    if (!href) continue;
    const own = href.startsWith("/");
    const link = el("a", own ? "own-link" : "", own ? "打开诉求单 ›" : text);
    link.href = href;
    if (!own) Object.assign(link, { target: "_blank", rel: "noopener noreferrer" });
    parts.push(...unbroken(line.slice(end, match.index)), link);
    end = match.index + text.length;
  }
  return [...parts, ...unbroken(line.slice(end))];
}

// A ticket number is read out and copied: it must not break over two lines.
const unbroken = (text) => text.split(NUMBER).flatMap((part, n) => (n % 2 ? [el("span", "number", part)] : dialled(part)));

// Whoever is in danger taps the number they are told to ring; a sum of 120 yuan is not one.
const dialled = (text) => text.split(RING).flatMap((part, n) => (n % 2 ? part.split(/(\d+)/).map(telephone) : [part]));

function telephone(text) {
  if (!CALLED.has(text)) return text;
  const link = el("a", "tel", text);
  link.href = `tel:${text}`;
  return link;
}

function lines(text, baseUrl) {
  return text.split("\n").map((line) => {
    const field = FIELD.exec(line);
    if (!field) return el("div", "line", ...linked(line, baseUrl));
    return el("div", "line field", el("span", "", field[1]), el("span", "", ...linked(field[2], baseUrl)));
  });
}

// -- time -----------------------------------------------------------------------------------------------------------

const CHINA = { timeZone: "Asia/Shanghai" };
const CLOCK = new Intl.DateTimeFormat("zh-CN", { ...CHINA, hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat("zh-CN", { ...CHINA, month: "long", day: "numeric" });
const YEAR_DAY = new Intl.DateTimeFormat("zh-CN", { ...CHINA, year: "numeric", month: "long", day: "numeric" });

export function timeLabel(at, now) {
  const day = (moment) => YEAR_DAY.format(moment);
  if (day(at) === day(now)) return CLOCK.format(at);
  if (day(at) === day(new Date(now - 86400000))) return `昨天 ${CLOCK.format(at)}`;
  const sameYear = day(at).slice(0, 5) === day(now).slice(0, 5);
  return `${(sameYear ? DAY : YEAR_DAY).format(at)} ${CLOCK.format(at)}`;
}

// What WeChat gave to its platform is fetched from there within seconds, and not there before.
function loadLater(image) {
  const [address, tries] = [image.src, [2000, 5000, 15000]];
  image.addEventListener("error", () => {
    const pause = tries.shift();
    if (pause) setTimeout(() => { image.src = `${address}?again=${tries.length}`; }, pause);
  });
}

// -- the log --------------------------------------------------------------------------------------------------------

export class Log {
  constructor(root, { baseUrl, assistant, toNewest, clock }) {
    Object.assign(this, { root, baseUrl, assistant, toNewest, clock });
    this.lastAt = 0;
    this.typing = null;
    this.stuck = true; // the reader is at the newest message and wants to stay there when something grows
    root.addEventListener("scroll", () => {
      this.stuck = root.scrollHeight - root.scrollTop - root.clientHeight < NEAR_BOTTOM;
      if (this.stuck) toNewest.hidden = true;
    }, { passive: true });
    new ResizeObserver(() => this.follow()).observe(root);
    toNewest.addEventListener("click", () => { this.toBottom(); root.focus(); });
  }

  has(id) { return Boolean(this.root.querySelector(`[data-id="${CSS.escape(id)}"]`)); }

  follow() { if (this.stuck) this.toBottom(); }

  toBottom() {
    this.root.scrollTop = this.root.scrollHeight;
    this.stuck = true;
    this.toNewest.hidden = true;
  }

  // A first greeting is read from its beginning, also where large type makes it taller than the screen.
  toTop() {
    this.root.scrollTop = 0;
    this.stuck = false;
    this.toNewest.hidden = true;
  }

  // item: {id?, sender, text, at?, buttons?, attachment?, preview?}; the node is returned so that its state can change later.
  add(item, { follow = this.stuck } = {}) {
    const resident = item.sender === "resident";
    if (resident) this.dropReplies();
    const bubble = this.bubble(item);
    const who = resident ? "您说：" : item.sender === "staff" ? "工作人员说：" : `${this.assistant}说：`;
    const column = el("div", "column", el("span", "visually-hidden", who), el("div", "line-up", bubble));
    const node = el("div", `item ${resident ? "resident" : item.sender === "staff" ? "bot staff" : "bot"}`);
    if (!resident) node.append(this.avatar());
    node.append(column);
    if (item.id) node.dataset.id = item.id;
    this.stamp(item.at ? Date.parse(item.at) : this.clock());
    this.root.insertBefore(node, this.typing);
    if (item.buttons?.length) this.addReplies(column, item.buttons);
    if (follow) this.toBottom(); else this.toNewest.hidden = false;
    return node;
  }

  bubble(item) {
    if (!item.attachment && !item.preview) return el("div", "bubble", ...lines(item.text, this.baseUrl));
    const image = el("img");
    image.alt = "您发的照片";
    image.src = item.preview ?? `/chat/pictures/${encodeURIComponent(item.attachment)}`;
    image.addEventListener("load", () => this.follow(), { once: true });
    if (!item.preview) loadLater(image);
    const link = el("a", "", image);
    Object.assign(link, { href: image.src, target: "_blank", rel: "noopener" });
    return el("div", "bubble picture", link);
  }

  avatar() {
    const image = el("img", "avatar");
    image.alt = "";
    image.src = document.querySelector("link[rel=icon]").href;
    return image;
  }

  stamp(at) {
    if (at - this.lastAt > GROUP_GAP_MS) {
      const time = el("time", "", timeLabel(new Date(at), new Date(this.clock())));
      time.dateTime = new Date(at).toISOString();
      this.root.insertBefore(el("div", "stamp", time), this.typing);
    }
    this.lastAt = Math.max(this.lastAt, at);
  }

  // Buttons stay with the newest message that asks something; news without a question does not take them away.
  addReplies(column, buttons) {
    this.dropReplies();
    const row = el("div", "replies");
    row.setAttribute("role", "group");
    row.setAttribute("aria-label", "快捷回复");
    for (const { title, payload } of buttons) {
      const chip = el("button", "chip", title);
      chip.type = "button";
      chip.dataset.payload = payload;
      row.append(chip);
    }
    column.append(row);
  }

  dropReplies() { for (const row of this.root.querySelectorAll(".replies")) row.remove(); }

  showTyping() {
    if (this.typing) return;
    const bubble = el("div", "bubble", el("div", "dots", el("i"), el("i"), el("i")));
    this.typing = el("div", "item bot typing", this.avatar(), el("div", "column", el("span", "visually-hidden", `${this.assistant}正在输入`), bubble));
    this.root.append(this.typing);
    this.follow();
  }

  hideTyping() {
    this.typing?.remove();
    this.typing = null;
  }

  // -- state of a resident's own message ---------------------------------------------------------------------------

  sending(node) {
    node.classList.add("sending");
    node.querySelector(".failed-mark")?.remove();
    node.querySelector(".failure")?.remove();
  }

  sent(node, id) {
    node.classList.remove("sending");
    if (this.has(id)) node.remove(); else node.dataset.id = id;
  }

  failed(node, why, retry) {
    this.sending(node);
    node.classList.remove("sending");
    const mark = el("span", "failed-mark", "!");
    mark.setAttribute("aria-hidden", "true");
    node.querySelector(".line-up").prepend(mark);
    const row = el("div", "failure", el("span", "", why));
    if (retry) {
      const button = el("button", "button", "重发");
      button.type = "button";
      button.addEventListener("click", retry);
      row.append(button);
    }
    node.querySelector(".column").append(row);
    this.follow();
  }
}
