// The conversation on the left: one line a turn, words of a field marked, the newest in view while nobody scrolled away.
const list = document.getElementById("turns");
const NAMES = { agent: "坐席", citizen: "市民" };
let shown = [];
let marks = [];

function clock(at) {
  const moment = new Date(at);
  return `${String(moment.getHours()).padStart(2, "0")}:${String(moment.getMinutes()).padStart(2, "0")}:${String(moment.getSeconds()).padStart(2, "0")}`;
}

// Offsets count characters as people do; a browser's strings count UTF-16 units.
function fill(target, text, spans) {
  const characters = Array.from(text);
  let at = 0;
  target.replaceChildren();
  for (const { start, end } of [...spans].sort((a, b) => a.start - b.start)) {
    if (start < at) continue;
    target.append(characters.slice(at, start).join(""));
    const mark = document.createElement("mark");
    mark.textContent = characters.slice(start, end).join("");
    target.append(mark);
    at = end;
  }
  target.append(characters.slice(at).join(""));
}

function paint(item, turn, number) {
  item.className = `turn ${turn.speaker}`;
  const who = item.querySelector(".who");
  who.textContent = NAMES[turn.speaker];
  who.title = turn.speaker === turn.said_by ? "" : `识别系统标的是${NAMES[turn.said_by]}，按内容看是${NAMES[turn.speaker]}`;
  who.classList.toggle("guessed", turn.speaker !== turn.said_by);
  item.querySelector(".at").textContent = clock(turn.at);
  fill(item.querySelector(".said"), turn.text, marks.filter((mark) => mark.turn === number));
  item.classList.toggle("marked", marks.some((mark) => mark.turn === number));
}

function blank() {
  const item = document.createElement("li");
  item.innerHTML = '<span class="who"></span><span class="at number"></span><p class="said"></p>';
  return item;
}

export function showTurns(turns) {
  const follow = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  const grown = turns.length > shown.length;
  while (list.children.length > turns.length) list.lastChild.remove();
  turns.forEach((turn, number) => {
    const known = shown[number];
    if (known && list.children[number] && known.text === turn.text && known.speaker === turn.speaker) return;
    const item = list.children[number] ?? list.appendChild(blank());
    paint(item, turn, number);
  });
  shown = turns;
  list.classList.toggle("silent", !turns.length);
  if (grown && follow) list.scrollTop = list.scrollHeight;
}

export function markWords(sources, { scroll = false } = {}) {
  const before = new Set(marks.map((mark) => mark.turn));
  marks = sources;
  for (const number of new Set([...before, ...sources.map((source) => source.turn)])) {
    if (list.children[number] && shown[number]) paint(list.children[number], shown[number], number);
  }
  const first = list.children[sources[0]?.turn];
  if (scroll && first) {
    first.scrollIntoView({ block: "center", behavior: "smooth" });
    first.classList.remove("called");
    void first.offsetWidth; // the animation begins anew
    first.classList.add("called");
  }
}
