// The list of tickets by keyboard: j and k move, Enter opens, / searches; a changed filter shows its list at once.
const rows = [...document.querySelectorAll("tr[data-href]")];
const filters = document.getElementById("filters");
const toggle = document.getElementById("toggle-filters");
let current = -1;

function choose(number) {
  if (!rows.length) return;
  rows[current]?.classList.remove("chosen");
  current = Math.max(0, Math.min(number, rows.length - 1));
  rows[current].classList.add("chosen");
  rows[current].querySelector("a").focus({ preventScroll: true });
  rows[current].scrollIntoView({ block: "nearest" });
}

const writing = (target) => target.closest("input, select, textarea, [contenteditable]");

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
  if (writing(event.target)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const moves = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 };
  if (event.key in moves) {
    event.preventDefault();
    choose(current + moves[event.key]);
  } else if (event.key === "Enter" && current >= 0 && !event.target.closest("a, button")) {
    location.href = rows[current].dataset.href;
  } else if (event.key === "/") {
    event.preventDefault();
    document.getElementById("q").select();
  } else if (event.key === "n") {
    document.getElementById("older")?.click();
  }
});

for (const row of rows) {
  row.addEventListener("click", (event) => {
    if (event.target.closest("a") || String(getSelection())) return;
    location.href = row.dataset.href;
  });
}

function show() {
  // A class that was chosen anew makes the finer one of the old class meaningless; empty fields stay out of the address.
  for (const field of filters.elements) if (!field.value) field.disabled = true;
  filters.submit();
}

filters.addEventListener("change", (event) => {
  const finer = document.getElementById("f-below");
  if (finer) (event.target.id === "f-category" ? finer : document.getElementById("f-category")).disabled = true;
  show();
});
filters.addEventListener("submit", (event) => {
  event.preventDefault();
  const finer = document.getElementById("f-below");
  if (finer) document.getElementById("f-category").disabled = true;
  show();
});
addEventListener("pageshow", () => { for (const field of filters.elements) field.disabled = false; });

toggle.addEventListener("click", () => {
  const open = filters.classList.toggle("open");
  toggle.setAttribute("aria-expanded", String(open));
});
