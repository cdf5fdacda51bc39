// Asks once more before something happens, with room for a reason; gives back the reason, or null when the person thought better of it.
const part = (name) => document.getElementById(`ask${name}`);

export function ask({ title, text = "", yes, reason = "", least = 0, danger = false }) {
  const dialog = part("");
  part("-title").textContent = title;
  part("-text").textContent = text;
  part("-yes").textContent = yes;
  part("-yes").className = danger ? "btn btn-danger" : "btn btn-primary";
  const field = part("-reason");
  field.value = "";
  field.hidden = part("-label").hidden = part("-hint").hidden = !reason;
  part("-label").textContent = reason;
  part("-hint").textContent = least ? `至少 ${least} 个字，会记在历史里。` : "可以不写；写了会记在历史里。";
  const check = () => { part("-yes").disabled = field.value.trim().length < least; };
  field.oninput = check;
  check();
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue === "yes" ? field.value.trim() : null);
  });
}
