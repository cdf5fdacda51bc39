// The half-filled form beside a conversation. What a person types is saved when they leave the field; what comes from the server
// never overwrites the field they are in.
import { tell } from "../staff/net.js";

const byId = (id) => document.getElementById(id);

export class Form {
  constructor({ act, ask }) {
    Object.assign(this, { act, ask, form: byId("form"), drafts: [], draftId: null, pending: null, mine: false });
    this.form.addEventListener("change", (event) => this.save(event.target));
    this.form.addEventListener("submit", (event) => { event.preventDefault(); this.file(); });
    byId("start").addEventListener("click", () => act("start"));
    byId("missing").addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) ask(button.dataset.question);
    });
  }

  get draft() { return this.drafts.find((draft) => draft.id === this.draftId) ?? this.drafts[0] ?? null; }

  show({ drafts, tickets }, mine) {
    this.drafts = drafts;
    this.mine = mine;
    this.showTickets(tickets);
    this.showTabs();
    const draft = this.draft;
    byId("no-draft").hidden = Boolean(draft);
    byId("start").hidden = !mine;
    document.querySelector(".no-draft-hint").hidden = !mine;
    this.form.hidden = !draft;
    byId("fields").disabled = !mine;
    if (draft) this.fill(draft);
  }

  showTickets(tickets) {
    byId("filed").replaceChildren(...tickets.map((ticket) => {
      const item = document.createElement("li");
      const link = document.createElement("a");
      link.href = `/desk/tickets/${ticket.number}`;
      link.textContent = `${ticket.title}`;
      item.append(link, ` ${ticket.number} · ${ticket.state}`);
      return item;
    }));
  }

  showTabs() {
    const tabs = byId("draft-tabs");
    tabs.hidden = this.drafts.length < 2;
    tabs.replaceChildren(...this.drafts.map((draft) => {
      const tab = document.createElement("button");
      tab.type = "button";
      tab.className = "btn btn-sm btn-outline-secondary";
      tab.setAttribute("role", "tab");
      tab.setAttribute("aria-selected", String(draft.id === this.draft?.id));
      tab.textContent = draft.title;
      tab.addEventListener("click", () => { this.draftId = draft.id; this.show({ drafts: this.drafts, tickets: [] }, this.mine); });
      return tab;
    }));
  }

  fill(draft) {
    const fresh = this.shown !== draft.id;
    this.shown = draft.id;
    for (const field of this.form.elements) {
      if (!field.name || (!fresh && (field === document.activeElement || field === this.pending))) continue;
      if (field.type === "checkbox") field.checked = draft[field.name];
      else if (field.value !== draft[field.name]) field.value = draft[field.name];
    }
    byId("personal").hidden = !draft.open_to;
    byId("lead").textContent = draft.lead;
    byId("pictures").textContent = draft.attachments.length ? `照片 ${draft.attachments.length} 张` : "";
    byId("confidence").textContent = draft.confidence === null ? "" : `把握 ${Math.round(draft.confidence * 100)}%`;
    this.showMissing(draft.missing);
  }

  showMissing(missing) {
    const drawn = JSON.stringify([missing, this.mine]);
    if (drawn === this.drawnMissing) return;
    this.drawnMissing = drawn;
    byId("missing").replaceChildren(...missing.map(({ label, question }) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "ask";
      button.dataset.question = question;
      button.disabled = !this.mine;
      button.title = question;
      button.textContent = `还差：${label}`;
      return button;
    }));
  }

  // One field at a time, in order: two answers must not overtake each other.
  save(field) {
    if (!field.name || !this.draft) return;
    const value = field.type === "checkbox" ? field.checked : field.name === "category" ? field.value.trim().split(/[\s/]/)[0] : field.value;
    this.pending = field;
    const id = this.draft.id;
    this.queue = (this.queue ?? Promise.resolve()).then(async () => {
      const saved = await this.act("form", { id, [field.name]: value });
      if (this.pending === field) this.pending = null;
      byId("saved").textContent = saved ? "已保存" : "没有保存";
      if (!saved) this.shown = null; // back to what the server has
    });
  }

  // What is being typed counts as well when the conversation changes hands.
  async flush() {
    if (document.activeElement?.form === this.form) document.activeElement.blur();
    await this.queue;
  }

  async file() {
    if (this.filing) return;
    this.filing = byId("file").disabled = true;
    await this.flush();
    const filed = this.draft && (await this.act("file", { id: this.draft.id }));
    this.filing = byId("file").disabled = false;
    if (filed) tell(`已登记 ${filed.number}，编号已告诉居民。`);
  }
}
