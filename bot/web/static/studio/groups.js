// Groups of items that read alike: looked through and accepted with one class.
import { attempt, getJson, postJson, tell } from "../staff/net.js";
import { choices, node } from "./item.js";

const panel = document.getElementById("group");
let group = null;

export async function listGroups(query) {
  return (await attempt(() => getJson(`/studio/review/clusters?${query}`)))?.clusters ?? [];
}

export async function openGroup(cluster, actions) {
  const answer = await attempt(() => getJson(`/studio/review/clusters/${cluster}`));
  if (!answer) return;
  group = { ...answer, request_type: "", left: new Set(), actions };
  draw();
}

export const closeGroup = () => { group = null; panel.hidden = true; };
export const groupOpen = () => group !== null;

export function setGroupCategory(code, label) {
  Object.assign(group, { category: code, label });
  draw();
}

export const groupCategory = () => group.category;

const chosen = () => group.items.filter((item) => !group.left.has(item.id)).map((item) => item.id);

export async function acceptGroup() {
  const items = chosen();
  if (items.length === 0) return tell("请至少勾选一条。", { problem: true });
  const body = { items, category: group.category, request_type: group.request_type || null };
  const answer = await attempt(() => postJson(`/studio/review/clusters/${group.cluster}`, body));
  if (!answer) return undefined;
  const { actions } = group;
  closeGroup();
  return actions.accepted(answer.accepted);
}

function draw() {
  const head = node("header", "card-header review-head", `${group.items.length} 条读起来相似`);
  const body = node("div", "card-body");
  const fields = node("div", "review-group-fields");
  const category = node("button", "btn btn-chosen", group.label);
  category.append(" ", node("kbd", "", "C"));
  category.addEventListener("click", () => group.actions.pick());
  const type = node("select", "form-select form-select-sm");
  type.setAttribute("aria-label", "诉求类型");
  type.append(new Option("诉求类型不统一，不记录", ""), ...choices.request_types.map((name) => new Option(name, name)));
  type.value = group.request_type;
  type.addEventListener("change", () => { group.request_type = type.value; });
  fields.append(node("span", "", "全部记作"), category, type);
  const list = node("ul", "review-members");
  group.items.forEach((item) => list.append(member(item)));
  body.append(fields, list);
  const foot = node("footer", "card-footer review-actions");
  const accept = node("button", "btn btn-primary", `采纳 ${chosen().length} 条 `);
  accept.id = "accept-group";
  accept.append(node("kbd", "", "Enter"));
  accept.addEventListener("click", acceptGroup);
  foot.append(accept, node("span", "text-secondary", "不合适的去掉勾；采纳后可按 Z 一次撤销。"));
  panel.replaceChildren(head, body, foot);
  panel.hidden = false;
}

function member(item) {
  const row = node("li");
  const label = node("label");
  const box = node("input", "form-check-input");
  box.type = "checkbox";
  box.checked = !group.left.has(item.id);
  box.addEventListener("change", () => {
    if (box.checked) group.left.delete(item.id); else group.left.add(item.id);
    document.getElementById("accept-group").firstChild.data = `采纳 ${chosen().length} 条 `;
  });
  const words = node("span", "", item.text);
  label.append(box, words);
  row.append(label);
  if (item.category !== group.category) row.append(node("small", "review-was", `读作 ${item.label}`));
  return row;
}
