// Plain forms while the server takes its time: sent once however often they are pressed, and the person sees that it goes on.
(() => {
  const SHOW_MS = 600; // an answer that comes at once needs no word about it
  const GIVE_UP_MS = 30000; // the network may have swallowed it: it must be possible to try again
  let going = null;

  const stop = () => {
    if (!going) return;
    clearTimeout(going.show);
    clearTimeout(going.end);
    going.note.remove();
    going.form.removeAttribute("aria-busy");
    going = null;
  };

  document.addEventListener("submit", (event) => {
    const { target: form, submitter } = event;
    // A form that its script sends (method="dialog") has its own ways of saying how far it is.
    if (form.getAttribute("method") === "dialog" || event.defaultPrevented) return;
    if (going) return event.preventDefault();
    const note = document.createElement("span");
    note.className = "busy-note";
    note.setAttribute("role", "status");
    (submitter ?? form.lastElementChild).after(note);
    form.setAttribute("aria-busy", "true");
    going = { form, note, show: setTimeout(() => { note.textContent = "正在处理，请稍等……"; }, SHOW_MS), end: setTimeout(stop, GIVE_UP_MS) };
  });

  addEventListener("pageshow", stop); // back from the next page: the form can be used again
})();
