// Inside WeChat the phone's place and photos come by way of its JS-SDK. Where that does not work the page does without it.
import { api } from "./net.js";

const LOAD_MS = 8000;
const NEEDED = ["getLocation", "chooseImage", "uploadImage"];
const NAMES = [...NEEDED, "getLocalImgData"];

// {canLocate, canChoose} of this phone once WeChat has accepted the page; null when it has not.
export async function openWeChat(address) {
  const here = location.href.split("#")[0];
  const [loaded, config] = await Promise.all([load(address), api.wechat(here)]);
  if (!loaded || !config.ok || !(await configured(config.body))) return null;
  const can = await supported();
  return { canLocate: can.getLocation, canChoose: can.chooseImage && can.uploadImage };
}

// {lat, lng}, or null when the resident or the phone does not want to.
export async function locate() {
  const found = await ask("getLocation", { type: "gcj02" });
  return found && { lat: Number(found.latitude), lng: Number(found.longitude) };
}

export async function choosePhotos(count) {
  const chosen = await ask("chooseImage", { count, sizeType: ["compressed"], sourceType: ["album", "camera"] });
  return chosen?.localIds ?? [];
}

// An address of the photo for this page; some phones send the bare data.
export async function previewOf(localId) {
  const data = (await ask("getLocalImgData", { localId }))?.localData;
  if (!data) return null;
  return data.startsWith("data:") ? data.replace("image/jgp", "image/jpeg") : `data:image/jpeg;base64,${data.replace(/\s/g, "")}`;
}

// The platform's name for the photo once it is there; null when it did not get there.
export async function upload(localId) {
  return (await ask("uploadImage", { localId, isShowProgressTips: 0 }))?.serverId ?? null;
}

function ask(name, options) {
  return new Promise((resolve) => {
    try {
      window.wx[name]({ ...options, success: resolve, fail: () => resolve(null), cancel: () => resolve(null) });
    } catch {
      resolve(null); // a version without this call
    }
  });
}

function load(address) {
  const script = document.createElement("script");
  const arrived = new Promise((resolve) => {
    script.onload = () => resolve(Boolean(window.wx));
    script.onerror = () => resolve(false);
  });
  script.src = address;
  document.head.append(script);
  return inTime(arrived, false);
}

function configured(config) {
  const accepted = new Promise((resolve) => {
    window.wx.ready(() => resolve(true));
    window.wx.error(() => resolve(false));
    window.wx.config({ debug: false, ...config, jsApiList: NAMES });
  });
  return inTime(accepted, false);
}

async function supported() {
  const told = await inTime(ask("checkJsApi", { jsApiList: NEEDED }), null);
  const results = typeof told?.checkResult === "string" ? JSON.parse(told.checkResult) : told?.checkResult;
  return Object.fromEntries(NEEDED.map((name) => [name, Boolean(results?.[name])]));
}

function inTime(promise, otherwise) {
  return Promise.race([promise, new Promise((resolve) => { setTimeout(() => resolve(otherwise), LOAD_MS); })]);
}
