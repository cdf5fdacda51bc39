// Stands in for WeChat's JS-SDK: the same calls, answered by the simulated phone. Scripts are the only thing a page may load from here.
"use strict";
(() => {
  const phone = new URL("/jssdk/call", document.currentScript.src);
  const [waiting, complaining] = [[], []];
  let state = "", allowed = [], serial = 0;

  function ask(name, options, answer) {
    const callback = `jweixinAnswer${serial++}`;
    const script = document.createElement("script");
    const plain = JSON.stringify(options, (key, value) => (typeof value === "function" ? undefined : value));
    phone.search = new URLSearchParams({ name, options: plain, url: location.href.split("#")[0], callback });
    script.src = phone;
    window[callback] = (told) => { delete window[callback]; script.remove(); answer(told); };
    document.head.append(script);
  }

  function call(name, options) {
    const finish = (told) => {
      const outcome = told.errMsg.endsWith(":ok") ? "success" : told.errMsg.endsWith(":cancel") ? "cancel" : "fail";
      options[outcome]?.(told);
      options.complete?.(told);
    };
    if (state !== "ok" || !allowed.includes(name)) return finish({ errMsg: `${name}:fail permission denied` });
    return ask(name, options, finish);
  }

  window.wx = {
    config(options) {
      allowed = options.jsApiList;
      ask("config", options, (told) => {
        state = told.errMsg.replace("config:", "");
        (state === "ok" ? waiting : complaining).forEach((tell) => tell(told));
      });
    },
    ready(tell) { if (state === "ok") tell(); else waiting.push(tell); },
    error(tell) { if (state && state !== "ok") tell(); else complaining.push(tell); },
    checkJsApi({ jsApiList, success }) {
      success({ errMsg: "checkJsApi:ok", checkResult: Object.fromEntries(jsApiList.map((name) => [name, name in window.wx])) });
    },
  };
  for (const name of ["getLocation", "chooseImage", "getLocalImgData", "uploadImage"]) window.wx[name] = (options) => call(name, options);
})();
