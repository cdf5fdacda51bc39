// Sends a file in pieces, each tried three times; a dropped line costs one piece, not the file.
import { postJson, Refused } from "./net.js";

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

export async function sendFile(file, onProgress = () => {}) {
  const { id, piece } = await postJson("/desk/uploads", { name: file.name, size: file.size });
  for (let offset = 0; offset < file.size; offset += piece) {
    await sendPiece(id, offset, file.slice(offset, offset + piece));
    onProgress(Math.min(offset + piece, file.size) / file.size);
  }
  return id;
}

async function sendPiece(id, offset, piece) {
  const token = document.querySelector('meta[name="csrf-token"]').content;
  const headers = { Accept: "application/json", "Content-Type": "application/octet-stream", "X-CSRFToken": token };
  for (let attempt = 1; ; attempt += 1) {
    try {
      const response = await fetch(`/desk/uploads/${id}?offset=${offset}`, { method: "POST", headers, body: piece });
      if (response.ok) return;
      const body = await response.json().catch(() => null);
      throw new Refused(body?.error || "文件没有传上去，请再试一次。", response.status, body);
    } catch (error) {
      if (error instanceof Refused && error.status < 500) throw error;
      if (attempt === 3) throw error instanceof Refused ? error : new Refused("网络断了，文件没有传完，请再试一次。", 0, null);
      await pause(1000 * attempt);
    }
  }
}
