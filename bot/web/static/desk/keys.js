// Every key of the call page in one place; the help dialog lists the same.
import { isOpen, openPicker } from "./category.js";
import { currentField, focusField, release, sourcesOf, step } from "./sheet.js";
import { markWords } from "./talk.js";

const byId = (id) => document.getElementById(id);
const isTyping = (element) => element?.matches("input:not([type=checkbox]), textarea");

export function setUpKeys(desk) {
  const alt = {
    KeyC: openPicker,
    KeyQ: desk.nextQuestion,
    KeyW: () => currentField() && markWords(sourcesOf(currentField()), { scroll: true }),
    KeyZ: () => currentField() && release(currentField()),
    KeyS: () => (byId("similar").querySelector("button, a") ?? byId("earlier").querySelector("button, a"))?.focus(),
    KeyL: () => byId("note-text").focus(),
    KeyN: desk.takeNext,
  };
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]")) return;
    if (event.ctrlKey && event.key === "Enter") {
      event.preventDefault();
      desk.file(event.shiftKey);
    } else if (event.altKey && !event.ctrlKey) {
      const digit = /^Digit([1-5])$/.exec(event.code);
      const act = digit ? () => (currentField() === "category" ? desk.chooseCandidate : desk.chooseTab)(Number(digit[1]) - 1) : alt[event.code];
      if (!act) return;
      event.preventDefault();
      act();
    } else if (event.key === "F1" || ((event.key === "?" || event.key === "？") && !isTyping(document.activeElement))) {
      event.preventDefault();
      byId("help").showModal();
    } else if (event.key === "Escape" && document.activeElement?.closest(".aside, .talk")) {
      focusField("title");
    } else moveWithArrows(event);
  });
}

// ↓ and ↑ go from field to field; inside a text of several lines only from its last and first.
function moveWithArrows(event) {
  const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const element = document.activeElement;
  if (!by || event.shiftKey || event.ctrlKey || event.isComposing || !currentField() || isOpen() || element.list) return;
  if (element.matches("textarea")) {
    const [start, end] = [element.selectionStart, element.selectionEnd];
    if (start !== end || (by > 0 ? end < element.value.length : start > 0)) return;
  }
  event.preventDefault();
  step(by);
}
