// Large type: remembered in this browser, or asked for with ?big=1 (?big=0 turns it off). Loaded in <head>, before drawing.
(() => {
  const KEY = "minsheng-big";
  const root = document.documentElement;

  // Private windows may refuse storage; the toggle still works for this page.
  const read = () => { try { return localStorage.getItem(KEY) === "1"; } catch { return false; } };
  const write = (on) => { try { localStorage.setItem(KEY, on ? "1" : "0"); } catch { /* not remembered */ } };

  const show = (on) => {
    root.classList.toggle("big", on);
    for (const toggle of document.querySelectorAll("[data-big-toggle]")) {
      toggle.hidden = false;
      toggle.setAttribute("aria-pressed", String(on));
    }
  };

  const asked = new URLSearchParams(location.search).get("big");
  if (asked === "1" || asked === "0") write(asked === "1");
  root.classList.toggle("big", asked === "1" || (asked !== "0" && read()));

  document.addEventListener("DOMContentLoaded", () => {
    show(root.classList.contains("big"));
    document.addEventListener("click", (event) => {
      const toggle = event.target.closest("[data-big-toggle]");
      if (!toggle) return;
      const on = !root.classList.contains("big");
      write(on);
      show(on);
      document.dispatchEvent(new CustomEvent("minsheng:big", { detail: on }));
    });
  });
})();
