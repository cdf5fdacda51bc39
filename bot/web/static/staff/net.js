// Talking to this server from staff pages: JSON both ways, the form token, and refusals as sentences.
const token = () => document.querySelector('meta[name="csrf-token"]').content;

export class Refused extends Error {
  constructor(sentence, status, body) {
    super(sentence);
    this.status = status;
    this.body = body;
  }
}

const SLOW_MS = 1500;

// What a person has asked for and is not answered soon is seen to be under way; what the page asks by itself stays quiet.
function showSlow(method) {
  const note = document.createElement("div");
  note.className = "toast-note";
  note.setAttribute("role", "status");
  note.textContent = "正在处理，请稍等……";
  const timer = method ? setTimeout(() => document.getElementById("toasts").append(note), SLOW_MS) : 0;
  return () => { clearTimeout(timer); note.remove(); };
}

async function ask(url, options) {
  let response;
  const done = showSlow(options.method);
  try {
    response = await fetch(url, { ...options, headers: { Accept: "application/json", ...options.headers } });
  } catch {
    throw new Refused("连不上服务器，请检查网络后再试。", 0, null);
  } finally {
    done();
  }
  if (response.status === 401) {
    location.href = "/login?next=" + encodeURIComponent(location.pathname + location.search);
    return new Promise(() => {});
  }
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new Refused(body?.error || "服务器没有答应，请稍后再试。", response.status, body);
  return body;
}

export const getJson = (url, options = {}) => ask(url, options);

export const postJson = (url, body = {}, method = "POST", more = {}) =>
  ask(url, { ...more, method, headers: { "Content-Type": "application/json", "X-CSRFToken": token() }, body: JSON.stringify(body) });

// Files and forms; the browser sets the content type.
export const postForm = (url, form) => ask(url, { method: "POST", headers: { "X-CSRFToken": token() }, body: form });

export function tell(sentence, { problem = false, seconds = 5 } = {}) {
  const note = document.createElement("div");
  note.className = problem ? "toast-note problem" : "toast-note";
  note.textContent = sentence;
  note.setAttribute("role", problem ? "alert" : "status");
  document.getElementById("toasts").append(note);
  setTimeout(() => note.remove(), seconds * 1000);
}

// Runs an action and tells the person when it was refused; gives back undefined then.
export async function attempt(action) {
  try {
    return await action();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    tell(error.message, { problem: true });
    return undefined;
  }
}
