// Choosing parked deliveries: all at once, and never an empty send.
const all = document.getElementById("all");
const form = document.getElementById("parked");
const boxes = () => [...form.querySelectorAll('input[name="id"]')];

all?.addEventListener("change", () => { for (const box of boxes()) box.checked = all.checked; update(); });
form?.addEventListener("change", update);

function update() {
  const chosen = boxes().filter((box) => box.checked).length;
  document.getElementById("resend").disabled = chosen === 0;
  all.checked = chosen === boxes().length;
  all.indeterminate = chosen > 0 && !all.checked;
}
