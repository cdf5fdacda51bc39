// While hot spots are looked for: says how far it is, and shows them when they are found.
import { getJson } from "../staff/net.js";

const section = document.getElementById("hotspots");

async function look() {
  const answer = await getJson(`/studio/dashboard/hotspots${location.search}`).catch(() => null);
  if (answer?.ended) return location.reload();
  if (answer) document.getElementById("hot-step").textContent = answer.step || "等待处理";
  setTimeout(look, 1500);
}

if (section?.dataset.running) setTimeout(look, 1500);
