// The right column: open tickets of the same place, what the caller filed before, answers and counters. Fetched apart from the
// form, so that the form never waits for it.
import { attempt, getJson, postJson } from "../staff/net.js";

// What the form says is looked up soon; what was said since only now and then.
const SOON_MS = 500;
const LATER_MS = 3000;
let url = "";
let onState = () => {};
let wanted = "";
let heard = 0;
let timer = 0;
let latest = null;
let relation = null;
let number = 0;
let locked = false;

export function setUpAside(callUrl, stateChanged) {
  url = callUrl;
  onState = stateChanged;
}

// Asks anew when what it depends on has changed; otherwise only the chosen relation is drawn again.
export function showAside(form, which, turns, isLocked) {
  const values = form.fields;
  const key = JSON.stringify([which, values.place.value, values.category.value, values.phone.value, values.anonymous.value]);
  const changed = JSON.stringify(relation) !== JSON.stringify(form.relation) || number !== which || locked !== isLocked;
  [relation, number, locked] = [form.relation, which, isLocked];
  if (key !== wanted) {
    wanted = key;
    plan(latest ? SOON_MS : 0);
  } else if (turns !== heard && !timer) plan(LATER_MS);
  else if (changed && latest) draw();
  heard = turns;
}

function plan(wait) {
  clearTimeout(timer);
  timer = setTimeout(fetchAside, wait);
}

async function fetchAside() {
  timer = 0;
  const key = wanted;
  const found = await getJson(`${url}/aside?form=${number}`).catch(() => null);
  if (!found || key !== wanted) return;
  latest = found;
  draw();
}

function draw() {
  fill("similar", latest.similar.map((ticket) => ticketItem(ticket, true)));
  fill("earlier", latest.earlier.map((ticket) => ticketItem(ticket, false)));
  fill("knowledge", latest.knowledge.map(entryItem));
  fill("points", latest.points.map(pointItem));
}

function fill(id, items) {
  const list = document.getElementById(id);
  const focused = document.activeElement?.closest(`#${id}`) ? document.activeElement.dataset.action : null;
  if (items.length) list.replaceChildren(...items);
  else list.replaceChildren(make("li", "aside-empty", list.dataset.empty));
  if (focused) (list.querySelector(`[data-action="${CSS.escape(focused)}"]`) ?? list.querySelector("button"))?.focus();
}

function make(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

function ticketItem(ticket, similar) {
  const item = make("li", "aside-ticket");
  const chosen = relation?.number === ticket.number ? relation.kind : null;
  item.classList.toggle("is-chosen", Boolean(chosen) || (ticket.auto && relation === null));
  const head = make("div", "aside-head");
  const link = make("a", "", ticket.title);
  link.href = `/desk/tickets/${ticket.number}`;
  link.target = "_blank";
  link.rel = "noopener";
  head.append(link);
  if (ticket.urgency !== "一般") head.append(make("span", ticket.urgency === "特急" ? "badge badge-critical" : "badge badge-urgent", ticket.urgency));
  const count = ticket.appellants > 1 ? ` · ${ticket.appellants} 人反映` : "";
  const when = new Date(ticket.filed_at).toLocaleDateString("zh-CN", { month: "numeric", day: "numeric" });
  item.append(head, make("div", "aside-meta", `${ticket.number} · ${when} · ${ticket.state}${count} · ${ticket.lead}`));
  if (!ticket.open || locked) return item;
  const row = make("div", "aside-actions");
  if (chosen === "join") row.append(make("b", "", "登记时算同诉"), button("撤销", ticket, null));
  else if (chosen === "merge") row.append(make("b", "", "登记时并入此单"), button("撤销", ticket, null));
  else if (ticket.auto && relation === null) row.append(make("b", "", "同一件事，登记时算同诉"), button("不是同一件", ticket, "alone"), button("并入此单", ticket, "merge"));
  else {
    if (ticket.auto) row.append(make("b", "", "已选：不是同一件"), button("撤销", ticket, null));
    if (similar && !ticket.auto) row.append(button("＋1 同诉", ticket, "join"));
    row.append(button("并入此单", ticket, "merge"));
  }
  item.append(row);
  return item;
}

function button(text, ticket, kind) {
  const element = make("button", "btn btn-sm btn-outline-secondary", text);
  element.type = "button";
  element.dataset.action = `${ticket.number}:${kind ?? "none"}`;
  element.setAttribute("aria-label", `${text}：${ticket.title}`);
  element.addEventListener("click", async () => {
    const state = await attempt(() => postJson(`${url}/relation`, { form: number, kind, number: ticket.number }));
    if (state) onState(state);
  });
  return element;
}

function entryItem(entry) {
  const item = make("li", "aside-entry");
  const hotline = entry.hotline ? `　电话 ${entry.hotline}` : "";
  item.append(make("b", "", entry.title), make("p", "", entry.answer), make("div", "aside-meta", `${entry.source} · ${entry.valid_from}${hotline}`));
  return item;
}

function pointItem(point) {
  const item = make("li", "aside-entry");
  const far = point.km === null ? "" : `约 ${point.km} 公里`;
  item.append(make("b", "", point.name));
  const details = [point.address, far, point.phone && `电话 ${point.phone}`, point.hours].filter(Boolean).join(" · ");
  item.append(make("div", "aside-meta", details));
  if (point.materials) item.append(make("p", "", point.materials));
  return item;
}
