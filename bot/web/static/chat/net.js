// Talks to the server. Every answer is {ok, status, body, now}; status 0 means the network, so that callers never catch.

const HEADERS = { "X-Requested-With": "minsheng", Accept: "application/json" };
const TURN_MS = 60000;
const POLL_MS = 15000;

export const api = {
  items: (after) => call(`/chat/messages?after=${encodeURIComponent(after)}`, { headers: HEADERS }, POLL_MS),

  say: (message) => post("/chat/messages", message),

  picture(messageId, blob) {
    const form = new FormData();
    form.append("message_id", messageId);
    form.append("picture", blob, "picture.jpg");
    return call("/chat/pictures", { method: "POST", headers: HEADERS, body: form }, TURN_MS);
  },

  // What the JS-SDK is configured with for the page at this address, and a picture that WeChat has taken to its platform.
  wechat: (url) => call(`/chat/wechat?url=${encodeURIComponent(url)}`, { headers: HEADERS }, POLL_MS),

  wechatPicture: (messageId, mediaId) => post("/chat/wechat/pictures", { message_id: messageId, media_id: mediaId }),
};

const post = (url, value) =>
  call(url, { method: "POST", headers: { ...HEADERS, "Content-Type": "application/json" }, body: JSON.stringify(value) }, TURN_MS);

async function call(url, options, limit) {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), limit);
  try {
    const answer = await fetch(url, { ...options, credentials: "same-origin", cache: "no-store", signal: abort.signal });
    const body = await answer.json().catch(() => ({}));
    return { ok: answer.ok, status: answer.status, body, now: Date.parse(answer.headers.get("Date") ?? "") };
  } catch {
    return { ok: false, status: 0, body: {}, now: NaN };
  } finally {
    clearTimeout(timer);
  }
}

// crypto.randomUUID needs https; a pilot on a plain address still needs ids that never repeat.
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
