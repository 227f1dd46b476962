// The agents' pages. The server renders everything; this fetches parts of a page and patches them in place, so that a
// half-typed draft, the caret, the scroll position and open menus stay as they are.

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const csrf = $('meta[name="csrf"]')?.content ?? "";
const store = {
  get(key) { try { return localStorage.getItem(key); } catch { return null; } },
  set(key, value) { try { value === null ? localStorage.removeItem(key) : localStorage.setItem(key, value); } catch { /* full or off */ } },
};
// The one place where text becomes markup, and only what our own server rendered: the pages' policy refuses every other.
const markup = window.trustedTypes?.createPolicy("hub", { createHTML: (html) => html });
const parse = (html) => new DOMParser().parseFromString(markup ? markup.createHTML(html) : html, "text/html");
const narrow = matchMedia("(max-width: 820px)");
const pane = () => $("article.pane");
const scroller = () => $(".timeline-scroll");

// --- patching ---------------------------------------------------------------------------------------------------------
// data-keep: ours once it is there.  data-own: its attributes are set here.  data-tail: only its end is sent.

// People were joined or parted, or something moved: lines came or went anywhere, not only at the end.
let moved = false, whole = false;  // since the last reading began; in the one being shown

function patch(from, to) {
  if (from.dataset?.keep !== undefined || from.isEqualNode(to)) return;
  if (from.dataset?.own === undefined) {
    for (const { name, value } of [...to.attributes]) if (name !== "open" && from.getAttribute(name) !== value) from.setAttribute(name, value);
    for (const { name } of [...from.attributes]) if (name !== "open" && !to.hasAttribute(name)) from.removeAttribute(name);
  }
  const chosen = from.dataset?.touched ? from.value : to.value;  // of a select: the server's choice until somebody chooses
  let nodes = [...to.childNodes], at = from.firstChild;
  if (to.dataset?.tail !== undefined && !whole) {
    // What the page already shows above the first line both know stays.
    const known = nodes.findIndex((node) => /^(message|event)-/.test(node.id ?? "") && from.querySelector(`:scope > #${node.id}`));
    if (known >= 0) { at = from.querySelector(`:scope > #${nodes[known].id}`); nodes = nodes.slice(known); }
  }
  patchChildren(from, nodes, at);
  if (from.nodeName === "SELECT") from.value = chosen;
}

function patchChildren(from, nodes, at = from.firstChild) {
  const wanted = new Set(nodes.map((node) => node.id).filter(Boolean));
  const known = new Map([...from.children].filter((child) => child.id).map((child) => [child.id, child]));
  const skip = () => {
    while (at?.id && !wanted.has(at.id) && at.dataset.pending === undefined) { const gone = at; at = at.nextSibling; gone.remove(); }
  };
  for (const node of nodes) {
    skip();
    const same = node.id ? known.get(node.id) : at && !at.id && at.nodeName === node.nodeName ? at : null;
    if (!same) from.insertBefore(node, at);
    else {
      if (same === at) at = at.nextSibling;
      else if (from.moveBefore && same.isConnected) from.moveBefore(same, at);
      else from.insertBefore(same, at);
      if (same.nodeType === Node.ELEMENT_NODE) patch(same, node);
      else if (same.data !== node.data) same.data = node.data;
    }
  }
  while (at) { const gone = at; at = at.nextSibling; if (gone.dataset?.pending === undefined) gone.remove(); }
}

function show(html) {
  const fresh = parse(html), focused = document.activeElement, before = pane()?.id;
  const area = scroller(), atEnd = !area || area.scrollHeight - area.scrollTop - area.clientHeight < 80, last = newest();
  for (const part of $$("[data-part]", fresh)) {
    const target = $(`.screen > [data-part="${part.dataset.part}"]`);
    if (target) patchChildren(target, [...part.childNodes]);
  }
  if (focused?.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
  if ($('[data-part="conversation"]', fresh)) document.title = fresh.title;
  if (pane()?.id !== before) arrive();
  else if (atEnd) toEnd();
  else if (newest() !== last) $("[data-to-end]")?.removeAttribute("hidden");
  settle();
}

const newest = () => $("#timeline > .message:last-of-type")?.id;
function toEnd() { const area = scroller(); if (area) { area.scrollTop = area.scrollHeight; $("[data-to-end]").hidden = true; } }

function settle() {
  const unread = Number($("#views")?.dataset.unread ?? 0);
  document.title = (unread ? `(${unread > 99 ? "99+" : unread}) ` : "") + document.title.replace(/^\(\d+\+?\) /, "");
  freshen();
  const form = $("[data-composer]");
  if (form?.dataset.mode) { askWay(form); form.dispatchEvent(new CustomEvent("hub:composer", { bubbles: true })); }
  $$("[data-older], [data-more]").forEach((link) => nearing.observe(link));
  const customer = $(".customer");
  if (customer && !customer.firstElementChild) delete document.body.dataset.customerOpen;
}

// --- fetching and moving ----------------------------------------------------------------------------------------------

const ALL = ["views", "list", "conversation", "customer"];
let asked = 0, stale = new Set(), reading = null;

async function get(url, parts, rows) {
  const target = new URL(url, location.href);
  target.searchParams.set("parts", parts.join(","));
  if (rows) target.searchParams.set("rows", rows);
  const answer = await fetch(target, { headers: { Accept: "text/html" } });
  if (answer.status === 401 || new URL(answer.url).pathname === "/login") { signedOut(); throw new Error("signed out"); }
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return answer.text();
}

async function go(href, { push = true, replace = false } = {}) {
  const to = new URL(href, location.href), here = new URL(location.href);
  const sameList = to.pathname === here.pathname && (to.searchParams.get("q") ?? "") === (here.searchParams.get("q") ?? "");
  const number = ++asked;
  if (push) history[replace ? "replaceState" : "pushState"]({}, "", to);
  mark();
  const opens = to.searchParams.has("ticket") || to.searchParams.has("customer") || to.pathname.startsWith("/conversations/");
  document.body.dataset.pane = opens ? "conversation" : "list";
  delete document.body.dataset.customerOpen;
  if (to.pathname !== "/search" && document.activeElement !== $(".search input")) { const box = $(".search input"); if (box) box.value = ""; }
  try {
    const html = await get(to, sameList && push ? ["conversation", "customer"] : ALL);
    if (number === asked) { show(html); if (!sameList) $(".list").scrollTop = 0; mark(); }
  } catch (error) {
    if (number === asked && error.message !== "signed out") toast("The hub cannot be reached. Try again in a moment.", true);
  }
}

function mark() {
  const chosen = new URL(location.href).searchParams, ticket = chosen.get("ticket"), found = chosen.get("m");
  for (const link of $$("#rows a")) {
    const row = link.parentElement;
    const on = found ? row.id === `found-${found}` : ticket !== null && row.id === `ticket-${ticket}`;
    on ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
  }
}

function refresh(parts = ALL) {
  parts.forEach((part) => stale.add(part));
  reading ??= (async () => {
    await null;
    while (stale.size) {
      const wanted = [...stale], number = asked, url = new URL(location.href);
      stale = new Set();
      whole = moved; moved = false;
      ["m", "after"].forEach((name) => url.searchParams.delete(name));
      try {
        const html = await get(url, wanted, $$("#rows > li").length);
        if (number === asked) { show(html); mark(); }
      } catch { moved ||= whole; break; }
    }
    whole = false;
    reading = null;
  })();
  return reading;
}

const nearing = new IntersectionObserver((entries) => entries.filter((e) => e.isIntersecting).forEach((e) => more(e.target)), { rootMargin: "500px" });
async function more(link) {
  nearing.unobserve(link);
  if (!link.isConnected || link.dataset.busy) return;
  link.dataset.busy = "1";
  try {
    if (link.dataset.older !== undefined) {
      const answer = await fetch(link.href), area = scroller(), holder = link.closest("li");
      if (!answer.ok || !holder.isConnected) return;
      const height = area.scrollHeight, top = area.scrollTop;
      const lines = [...parse(`<ol>${await answer.text()}</ol>`).querySelector("ol").children].filter((line) => {
        if (line.id !== "older" && $(`#timeline > #${line.id}`)) {
          if (!line.classList.contains("day")) return false;
          $(`#timeline > #${line.id}`).remove();  // the same day goes on further up
        }
        return true;
      });
      holder.replaceWith(...lines);
      area.scrollTop = top + area.scrollHeight - height;
    } else {
      const fresh = parse(await get(link.href, ["list"]));
      for (const row of $$("#rows > li", fresh)) if (!document.getElementById(row.id)) $("#rows").append(row);
      const next = $("#more", fresh);
      next ? $("#more").replaceWith(next) : $("#more").remove();
    }
    mark(); settle();
  } catch { delete link.dataset.busy; }
}

// --- a conversation on the screen -------------------------------------------------------------------------------------

let watching = null;
function arrive() {
  const area = scroller(), lasting = pane()?.dataset.href;
  // A customer's own address shows their newest ticket; this screen stays at the ticket it shows.
  if (lasting && !new URL(location.href).searchParams.has("ticket")) { history.replaceState({}, "", lasting); mark(); }
  watching?.disconnect();
  if (!area) return;
  const near = $(".message.near");
  near ? near.scrollIntoView({ block: "center" }) : toEnd();
  let end = !near;
  area.addEventListener("scroll", () => {
    end = area.scrollHeight - area.scrollTop - area.clientHeight < 80;
    if (end) $("[data-to-end]").hidden = true;
  }, { passive: true });
  // The composer grows while somebody types: what stood at the end stays there.
  watching = new ResizeObserver(() => end && toEnd());
  watching.observe(area);
  watching.observe($("#timeline"));
  const form = $("[data-composer]");
  if (form) setMode(form, form.dataset.mode ?? "reply");
  markRead();
}

async function markRead() {
  const here = pane();
  if (!here?.dataset.ticket || document.hidden || Number(here.dataset.inbound) <= Number(here.dataset.read)) return;
  const upto = here.dataset.inbound;
  here.dataset.read = upto;
  document.getElementById(`ticket-${here.dataset.ticket}`)?.classList.remove("unread");
  if ((await post(`/tickets/${here.dataset.ticket}/read`, new URLSearchParams({ message_id: upto }))).ok) refresh(["views", "list"]);
}

async function post(url, body) {
  try {
    const answer = await fetch(url, { method: "POST", body, headers: { "X-CSRF-Token": csrf, Accept: "text/html" } });
    const away = answer.status === 401 || new URL(answer.url).pathname === "/login";
    if (answer.ok && !away) return { ok: true };
    if (away) signedOut();
    if (away && answer.ok) return { ok: false, reason: "Your session has ended. Nothing was sent; your text is kept." };
    const text = (await answer.text()).trim();
    const kind = answer.headers.get("Content-Type") ?? "";
    const reason = kind.startsWith("text/html") ? $(".error", parse(text))?.textContent : text.slice(0, 300);
    return { ok: false, reason: answer.status === 413 ? "These files are too large together." : reason || `The hub answered ${answer.status}. Nothing was saved; try again.` };
  } catch {
    return { ok: false, reason: "The hub cannot be reached. Your text is kept: try again in a moment. It is never sent twice." };
  }
}

// --- the composer -----------------------------------------------------------------------------------------------------

const files = new WeakMap();
const draftName = (form, mode = form.dataset.mode) => `draft:${form.dataset.ticket}:${mode}`;
const readDraft = (name) => { try { return JSON.parse(store.get(name)) ?? {}; } catch { return {}; } };
const fresh = () => crypto.randomUUID?.() ?? [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");

function saveDraft(form) {
  const text = form.elements.text.value, name = draftName(form);
  // The key stays with the draft until it has gone: sending it twice sends it once.
  store.set(name, text ? JSON.stringify({ text, key: readDraft(name).key ?? fresh() }) : null);
}

function setMode(form, mode) {
  const area = form.elements.text;
  if (form.dataset.mode && form.dataset.mode !== mode) saveDraft(form);
  // Reply and note keep their own texts, so that a note can never become a reply by one wrong key.
  if (form.dataset.mode !== mode) area.value = readDraft(draftName(form, mode)).text ?? "";
  form.dataset.mode = mode;
  form.classList.toggle("is-note", mode === "note");
  for (const tab of $$("[data-tab]", form)) {
    const on = tab.dataset.tab === mode;
    tab.setAttribute("aria-selected", String(on));
    tab.tabIndex = on ? 0 : -1;
  }
  area.placeholder = mode === "note" ? area.dataset.noteLabel : area.dataset.replyLabel;
  area.setAttribute("aria-label", area.placeholder);
  measure(form);
  askWay(form);
  form.dispatchEvent(new CustomEvent("hub:composer", { bubbles: true }));
}

// An answer by an address that nothing proves to be the same person's waits for the agent's word; the server asks too.
function askWay(form) {
  const box = $("[data-stop]", form), to = $("[data-to]", form), chosen = to?.selectedOptions[0];
  if (!box) return;
  const doubt = chosen?.dataset.doubt ?? "", key = `${to?.value}:${form.elements.last.value}:${doubt}`, tick = $("input", box);
  if (form.dataset.way !== key) { form.dataset.way = key; tick.checked = false; }
  box.hidden = !doubt && !(chosen?.dataset.elsewhere && to.dataset.touched);
  box.classList.toggle("calm", !doubt);
  $("[data-stop-text]", box).textContent = [chosen?.dataset.elsewhere, doubt].filter(Boolean).join(" ");
  tick.closest("label").hidden = !doubt;
}

function write(mode) {
  const form = $("[data-composer]");
  if (form) { setMode(form, mode); form.elements.text.focus(); }
}

function measure(form) {
  const box = $("[data-length]", form), most = Number($("[data-to]", form)?.selectedOptions[0]?.dataset.max ?? 0);
  const length = [...form.elements.text.value].length;
  box.hidden = form.dataset.mode === "note" || !most || length < most * 0.8;
  box.textContent = `${length.toLocaleString()} / ${most.toLocaleString()}`;
  box.classList.toggle("over", length > most);
}

function addFiles(form, added) {
  const all = [...(files.get(form) ?? []), ...added].slice(0, 10);
  if (all.reduce((sum, file) => sum + file.size, 0) > 25e6) return refuse(form, "These files are too large together: 25 MB is the most one message takes.");
  files.set(form, all);
  const list = $("[data-chosen]", form);
  list.replaceChildren(...all.map((file) => {
    const row = document.createElement("li"), name = document.createElement("span"), drop = document.createElement("button");
    name.textContent = file.name;
    drop.type = "button"; drop.className = "icon-button"; drop.textContent = "×";
    drop.setAttribute("aria-label", `Remove ${file.name}`);
    drop.onclick = () => { files.set(form, files.get(form).filter((other) => other !== file)); addFiles(form, []); };
    row.append(name, drop);
    return row;
  }));
  list.hidden = !all.length;
}

function refuse(form, reason) {
  const box = $("[data-refusal]", form), line = document.createElement("p");
  line.className = "error";
  line.textContent = reason;
  box.replaceChildren(...(reason ? [line] : []));
}

function bubble(text, count, mode) {
  const line = document.createElement("li"), body = document.createElement("div"), inner = document.createElement("div"), words = document.createElement("div");
  const under = document.createElement("p");
  line.className = `message ${mode === "note" ? "note" : "out"} pending`;
  line.dataset.pending = "";
  body.className = "body"; inner.className = "bubble"; words.className = "text"; under.className = "under";
  words.textContent = text || (count === 1 ? "1 file" : `${count} files`);
  under.textContent = mode === "note" ? "Saving…" : "Sending…";
  inner.append(words); body.append(inner, under); line.append(body);
  $("#timeline").append(line);
  toEnd();
  return line;
}

async function send(form, button) {
  const mode = form.dataset.mode, area = form.elements.text, text = area.value.trim(), carried = mode === "note" ? [] : files.get(form) ?? [];
  if (!text && !carried.length) return area.focus();
  if (form.dataset.busy || (mode === "reply" && $("[data-send]", form).disabled)) return;
  const tick = form.elements.confirmed_way, stop = $("[data-stop]", form);
  if (mode === "reply" && stop && !stop.hidden && !tick.closest("label").hidden && !tick.checked) {
    refuse(form, "Not sent yet: confirm above that your answer may go there.");
    return tick.focus();
  }
  form.dataset.busy = "1";
  saveDraft(form);
  const name = draftName(form), body = new FormData(), key = readDraft(name).key ?? fresh();
  for (const field of ["seen", "to"]) if (form.elements[field]) body.set(field, form.elements[field].value);
  body.set("text", text);
  body.set("draft_key", key);
  if (mode === "reply" && tick?.checked) body.set("confirmed_way", "1");
  if (mode === "reply" && form.dataset.split !== undefined) body.set("split", "1");
  const extras = mode === "reply" ? $$("[data-copies] input, [data-continues] input:checked, [data-template] :is(input, select), [data-answering] input", form) : [];
  for (const extra of extras) if (extra.name && !extra.closest("[hidden]")) body.set(extra.name, extra.value);
  if (button?.name === "then") body.set("then", button.value);
  carried.forEach((file) => body.append("file", file, file.name));
  refuse(form, "");
  const line = bubble(text, carried.length, mode);
  area.value = "";
  if (carried.length) { files.delete(form); addFiles(form, []); }
  const answer = await post(`/tickets/${form.dataset.ticket}/${mode}`, body);
  delete form.dataset.busy;
  if (answer.ok) {
    const later = area.value.trim() && form.dataset.mode === mode;
    store.set(name, null);
    form.dispatchEvent(new CustomEvent("hub:sent", { bubbles: true }));
    if (later && form.isConnected) saveDraft(form);
    await refresh();
  } else if (form.isConnected) {
    setMode(form, mode);
    area.value = [text, area.value].filter((part) => part.trim()).join("\n\n");
    store.set(name, JSON.stringify({ text: area.value, key }));
    addFiles(form, carried);
    refuse(form, answer.reason);
    area.focus();
    refresh(["conversation"]);
  } else toast(answer.reason, true);
  line.remove();
  measure(form);
}

// --- what people do ---------------------------------------------------------------------------------------------------

document.addEventListener("click", (event) => {
  const target = event.target.closest("a, button, summary");
  for (const menu of $$("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  if (!target) return;
  if (target.matches("a[data-nav]") && !(event.ctrlKey || event.metaKey || event.shiftKey || event.button) && document.body.matches(".inbox")) {
    event.preventDefault();
    go(target.href);
  } else if (target.matches("[data-older], [data-more]")) { event.preventDefault(); more(target); }
  else if (target.matches("[data-theme-toggle]")) {
    const dark = (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    store.set("theme", dark ? "light" : "dark");
  } else if (target.matches("[data-help]")) $("#help").showModal();
  else if (target.matches("[data-to-end]")) toEnd();
  else if (target.matches("[data-customer-pane]")) {
    "customerOpen" in document.body.dataset ? delete document.body.dataset.customerOpen : (document.body.dataset.customerOpen = "");
  } else if (target.matches("[data-tab]")) write(target.dataset.tab);
  else if (target.matches("[data-images]")) fill(target.closest(".slot"), target.dataset.images);
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.matches("[data-composer]")) { event.preventDefault(); send(form, event.submitter); }
  else if (form.matches("[data-command]")) { event.preventDefault(); command(form, event.submitter); }
  else if (form.matches("[data-search]")) { event.preventDefault(); seek(form.elements.q.value); }
});

async function command(form, button) {
  if (form.dataset.busy) return;
  form.dataset.busy = "1";
  const answer = await post(form.action, new URLSearchParams(new FormData(form, button)));
  delete form.dataset.busy;
  form.closest("details")?.removeAttribute("open");
  if (!answer.ok) return toast(answer.reason, true);
  await refresh();
  if (form.dataset.said) toast(form.dataset.said);
}

async function fill(slot, url) {
  const answer = await fetch(url);
  if (answer.ok) slot.replaceChildren(...parse(await answer.text()).body.childNodes);
}
document.addEventListener("toggle", (event) => {
  const box = event.target;
  if (!box.open || !box.dataset?.lazy || box.dataset.filled) return;
  box.dataset.filled = "1";
  fill($(".slot", box), box.dataset.lazy);
}, true);

let typing;
const seek = (words) => { clearTimeout(typing); const searching = location.pathname === "/search"; go(`/search?q=${encodeURIComponent(words.trim())}`, { replace: searching }); };
document.addEventListener("input", (event) => {
  const field = event.target, form = field.closest("[data-composer]");
  if (field.matches(".search input")) { clearTimeout(typing); typing = setTimeout(() => field.value.trim().length > 1 && seek(field.value), 220); }
  if (!form) return;
  if (field.name === "text") { saveDraft(form); measure(form); }
  if (field.matches("[data-to]")) { field.dataset.touched = "1"; measure(form); askWay(form); refuse(form, ""); }
  if (field.name === "confirmed_way") refuse(form, "");
  if (field.matches("[data-files]")) { addFiles(form, field.files); field.value = ""; }
});
document.addEventListener("change", (event) => { if (event.target.matches("[data-keys]")) store.set("keys", event.target.checked ? null : "off"); });
document.addEventListener("paste", (event) => {
  const form = event.target.closest?.("[data-composer]");
  if (form && event.clipboardData.files.length) { event.preventDefault(); addFiles(form, event.clipboardData.files); }
});
for (const kind of ["dragover", "dragleave", "drop"]) document.addEventListener(kind, (event) => {
  const form = event.target.closest?.(".pane") && $("[data-composer]");
  if (!form || !event.dataTransfer?.types.includes("Files")) return;
  event.preventDefault();
  form.classList.toggle("dropping", kind === "dragover");
  if (kind === "drop") addFiles(form, event.dataTransfer.files);
});

let leader = 0, place = 0;
function step(by) {
  const links = $$("#rows a");
  if (!links.length) return;
  const focused = links.indexOf(document.activeElement), current = links.findIndex((link) => link.hasAttribute("aria-current"));
  const at = focused >= 0 ? focused : current;
  // A row that has just left the list (resolved) leaves its place to the next one.
  const to = Math.min(Math.max(at >= 0 ? at + by : by > 0 ? place : place - 1, 0), links.length - 1);
  place = to;
  links[to].focus({ preventScroll: true });
  links[to].scrollIntoView({ block: "nearest" });
  if (pane() && !narrow.matches) go(links[to].href, { replace: true });
}

const act = (name) => $(`[data-act="${name}"]`)?.click();
const KEYS = {
  j: () => step(1), k: () => step(-1), o: () => document.activeElement.closest?.("#rows a")?.click(),
  r: () => write("reply"), n: () => write("note"), e: () => act("resolve"), i: () => act("assign-me"),
  "/": () => { const box = $(".search input"); box?.focus(); box?.select(); }, "?": () => $("#help")?.showModal(),
};
document.addEventListener("keydown", (event) => {
  const field = event.target.closest("input, textarea, select, [contenteditable]"), form = event.target.closest("[data-composer]");
  if (form && event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    return form.requestSubmit($(form.dataset.mode === "note" ? "[data-note]" : "[data-send]", form));
  }
  if (event.target.matches("[role=tab]") && /^Arrow(Left|Right)$/.test(event.key)) return write(form.dataset.mode === "note" ? "reply" : "note");
  if (event.key === "Escape" && !$("dialog[open]") && document.body.matches(".inbox")) {
    const menu = $("details.menu[open]");
    if (menu) { menu.open = false; $("summary", menu).focus(); }
    else if (field) field.blur();
    else if ("customerOpen" in document.body.dataset) delete document.body.dataset.customerOpen;
    else if (pane()) go($(".head .back").href);
    else if (location.pathname === "/search") go("/inbox/open");
    return;
  }
  if (field || event.ctrlKey || event.metaKey || event.altKey || store.get("keys") === "off" || $("dialog[open]") || !document.body.matches(".inbox")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (leader) {
    clearTimeout(leader); leader = 0;
    const view = $(`.views a[data-key="${CSS.escape(key)}"]`);
    if (view) { event.preventDefault(); view.dataset.nav === undefined ? location.assign(view.href) : go(view.href); }
    return;
  }
  if (key === "g") { leader = setTimeout(() => { leader = 0; }, 1200); return; }
  if (KEYS[key]) { event.preventDefault(); KEYS[key](); }
});

addEventListener("popstate", () => go(location.href, { push: false }));

function toast(text, bad = false) {
  const line = document.createElement("p");
  line.className = bad ? "toast bad" : "toast";
  line.textContent = text;
  $(".toasts")?.append(line);
  setTimeout(() => line.remove(), bad ? 7000 : 3000);
}

function freshen() {
  for (const time of $$("time[data-ago]")) {
    const seconds = Math.max(0, (Date.now() - Date.parse(time.dateTime)) / 1000);
    const words = seconds < 60 ? "now" : seconds < 3600 ? `${Math.floor(seconds / 60)}m` : seconds < 86400 ? `${Math.floor(seconds / 3600)}h` : seconds < 604800 ? `${Math.floor(seconds / 86400)}d` : "";
    if (words && time.textContent !== words) time.textContent = words;  // older ones stand as the server wrote them
  }
}

// --- live -------------------------------------------------------------------------------------------------------------
// One stream for all tabs: the tab that holds the lock listens and passes on what it hears.

const tabs = "BroadcastChannel" in window ? new BroadcastChannel("hub-live") : null;
let seen = document.body.dataset.seq ?? "";  // epoch-number: another epoch is another database, and its numbers say nothing here
const epoch = (id) => id.slice(0, id.lastIndexOf("-") + 1), number = (id) => Number(id.slice(id.lastIndexOf("-") + 1));
const later = (a, b) => epoch(a) !== epoch(b) || number(b) > number(a) ? b : a;

function connection(text) { const box = $(".connection"); if (box) { box.textContent = text; box.hidden = !text; } }
function signedOut() { connection("Signed out. Sign in in another tab; what you typed is kept."); }

function heard({ kind, id, changes }) {
  seen = later(seen, id);
  if (kind === "resync") { seen = id; moved = true; return void refresh(); }
  const mine = Number(pane()?.dataset.customer ?? 0), parts = new Set();
  for (const change of changes) {
    if (/^suggestion\./.test(change.type) && mine) parts.add("customer");
    if (/^(survey|follow_up)\./.test(change.type) && change.customer_id === mine) parts.add("conversation").add("customer");
    if (!/^(message|note|ticket|customer|hold|attachment)\./.test(change.type)) continue;
    if (change.type !== "message.updated") parts.add("views").add("list");
    if (change.customer_id === mine) { parts.add("conversation"); if (change.type !== "message.updated") parts.add("customer"); }
    if (["customer.merged", "customer.unmerged", "customer.split", "ticket.moved", "message.moved"].includes(change.type)) { moved = true; ALL.forEach((part) => parts.add(part)); }
  }
  if (parts.size) refresh([...parts]).then(markRead);
}

const typingHeard = (detail) => document.dispatchEvent(new CustomEvent("hub:typing", { detail }));

function listen() {
  const source = new EventSource(`/stream?after=${encodeURIComponent(seen)}`);
  let slow = 0;
  const pass = (kind) => (event) => {
    const news = { kind, id: event.lastEventId, changes: kind === "changes" ? JSON.parse(event.data) : [] };
    heard(news);
    tabs?.postMessage(news);
  };
  source.addEventListener("typing", ({ data }) => { typingHeard(JSON.parse(data)); tabs?.postMessage({ kind: "typing", typing: JSON.parse(data) }); });
  source.addEventListener("changes", pass("changes"));
  source.addEventListener("resync", pass("resync"));
  source.onopen = () => { clearTimeout(slow); connection(""); };
  source.onerror = () => {
    clearTimeout(slow);
    slow = setTimeout(() => connection("Reconnecting…"), 1500);
    if (source.readyState !== EventSource.CLOSED) return;  // the browser tries again by itself
    fetch("/inbox/open?parts=views").then((answer) => answer.status === 401 || answer.redirected ? (clearTimeout(slow), signedOut()) : 0, () => 0);
    setTimeout(() => { clearTimeout(slow); listen(); }, 3000 + Math.random() * 4000);
  };
  addEventListener("pagehide", () => source.close(), { once: true });
}

if (document.body.matches(".inbox")) {
  if (tabs) tabs.onmessage = ({ data }) => {
    if (data.kind === "where") { if (leading) tabs.postMessage({ kind: "here", id: seen }); }
    else if (data.kind === "typing") typingHeard(data.typing);
    else if (data.kind === "here") { if (data.id !== seen) { seen = data.id; refresh(); } }
    else heard(data);
  };
  let leading = false;
  const lead = () => { leading = true; listen(); return new Promise(() => {}); };
  if (navigator.locks && tabs) { navigator.locks.request("hub-live", lead); tabs.postMessage({ kind: "where" }); } else lead();
  const keys = $("[data-keys]");
  if (keys) keys.checked = store.get("keys") !== "off";
  setInterval(freshen, 30_000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) markRead(); });
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
  addEventListener("online", () => refresh());
  arrive();
  settle();
}
