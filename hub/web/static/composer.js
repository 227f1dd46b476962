// What the composer knows of the channel an answer leaves by: how long its window is open, its templates, how many SMS a text takes,
// who else gets a mail, which message is answered. The server decides all of it again; this only shows it in time.

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const csrf = $('meta[name="csrf"]')?.content ?? "";
const chosen = (form) => $("[data-to]", form)?.selectedOptions[0];

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// --- the window ---------------------------------------------------------------------------------------------------------

function left(milliseconds) {
  const minutes = Math.max(1, Math.round(milliseconds / 60_000));
  return minutes < 90 ? `${minutes} minute${minutes === 1 ? "" : "s"}` : `${Math.round(minutes / 60)} hours`;
}

function showWindow(form, way) {
  const box = $("[data-window]", form);
  if (!box) return;
  const closes = way?.dataset.closes ? Date.parse(way.dataset.closes) - Date.now() : null;
  const shut = way?.dataset.shut || (closes !== null && closes <= 0);
  const open = closes !== null && closes > 0;
  const words = way?.dataset.oneWay || (shut ? "Closed: only an approved template may be sent until they write again." : open ? `Open for ${left(closes)} more` : "");
  if (box.textContent !== words) box.textContent = words;
  box.hidden = !words;
  box.classList.toggle("closing", open && closes < 2 * 3_600_000);
  box.classList.toggle("shut", Boolean(shut));
  form.toggleAttribute("data-needs-template", Boolean(shut && way?.dataset.templates !== undefined));
  const pick = $("[data-pick-template]", form);
  if (pick) pick.hidden = way?.dataset.templates === undefined;
  block(form);
}

// Free text cannot leave where only a template may.
function block(form) {
  const send = $("[data-send]", form), stopped = !chosen(form) || chosen(form).disabled;
  const waits = form.dataset.needsTemplate !== undefined && $("[data-template]", form).hidden;
  for (const button of $$(".button.when-reply", form)) button.disabled = stopped || waits;
  if (send) send.title = waits ? "Choose an approved template first" : "";
}

// --- what else a way offers -----------------------------------------------------------------------------------------------

function showOffers(form, way) {
  const copies = $("[data-copies]", form), goes = $("[data-continues]", form), template = $("[data-template]", form);
  if (copies) copies.hidden = way?.dataset.mails === undefined;
  if (goes) {
    goes.hidden = !way?.dataset.elsewhere;
    if (goes.hidden) $("input", goes).checked = false;
  }
  if (template && !template.hidden && template.dataset.of !== way?.dataset.name) dropTemplate(form);
}

let counting;
function countParts(form, way) {
  const box = $("[data-count]", form), text = form.elements.text.value.trim();
  if (!box) return;
  clearTimeout(counting);
  if (way?.dataset.segments === undefined || form.dataset.mode === "note" || !text) { box.hidden = true; form.removeAttribute("data-split"); return; }
  counting = setTimeout(async () => {
    try {
      const body = new URLSearchParams({ text, most: way.dataset.max });
      const answer = await fetch("/compose/segments", { method: "POST", body, headers: { "X-CSRF-Token": csrf } });
      if (!answer.ok || form.elements.text.value.trim() !== text) return;
      const { segments, encoding, left: room, culprits, messages } = await answer.json();
      const dear = culprits.length ? ` (${encoding} because of ${culprits.slice(0, 5).join(" ")})` : "";
      box.textContent = `${segments} SMS, room for ${room}${dear}${messages > 1 ? `; leaves as ${messages} messages` : ""}`;
      box.classList.toggle("dear", segments > 3 || messages > 1);
      box.hidden = false;
      form.toggleAttribute("data-split", messages > 1);
    } catch { box.hidden = true; }
  }, 250);
}

function look(form) {
  const way = chosen(form);
  showWindow(form, way);
  showOffers(form, way);
  countParts(form, way);
  form.elements.text.hidden = form.dataset.mode !== "note" && $("[data-template]", form)?.hidden === false;
}

// --- templates -------------------------------------------------------------------------------------------------------------

async function pickTemplate(form) {
  const box = $("[data-template]", form), name = chosen(form)?.dataset.name;
  if (!name) return;
  box.dataset.of = name;
  box.hidden = false;
  box.replaceChildren(element("p", { className: "muted", textContent: "Fetching the templates…" }));
  let told;
  try {
    told = await (await fetch(`/channels/${encodeURIComponent(name)}/templates`)).json();
  } catch {
    told = { error: "The templates cannot be had now. Try again in a moment.", templates: [] };
  }
  if (box.hidden || chosen(form)?.dataset.name !== name) return;  // closed, or another channel chosen meanwhile
  box.dataset.draft ??= form.elements.text.value;
  const usable = told.templates.filter((one) => one.approved);
  if (!usable.length) {
    box.replaceChildren(element("p", { className: "error", textContent: told.error ?? "No template of this channel is approved yet." }), close(form));
    return;
  }
  const select = element("select", { name: "template", ariaLabel: "Template" }, ...usable.map((one, index) => element("option", { value: one.id, textContent: `${one.name} (${one.language})` })));
  const fields = element("div", { className: "variables" }), preview = element("div", { className: "preview", dir: "auto" });
  const language = element("input", { type: "hidden", name: "language" });
  const draw = () => {
    const one = usable[select.selectedIndex];
    language.value = one.language;
    fields.replaceChildren(...one.variables.map((variable) => element("label", {}, element("span", { textContent: variable }),
      element("input", { name: `variable.${variable}`, required: true, maxLength: 500, autocomplete: "off", placeholder: one.samples[variable] ?? "" }))));
    read();
  };
  const read = () => {
    const one = usable[select.selectedIndex], given = Object.fromEntries($$("input", fields).map((input) => [input.name.slice(9), input.value.trim()]));
    const put = (text) => text.replace(/\{\{\s*(\w+)\s*\}\}/g, (whole, variable) => given[variable] || whole);
    preview.textContent = [one.header.startsWith("<") ? `[${one.header.slice(1, -1)}]` : put(one.header), put(one.text), one.footer].filter(Boolean).join("\n\n");
    form.elements.text.value = preview.textContent;
  };
  select.addEventListener("change", draw);
  fields.addEventListener("input", read);
  box.replaceChildren(element("div", { className: "template-head" }, select, language, close(form)), fields, preview);
  form.elements.text.hidden = true;
  draw();
  ($("input", fields) ?? select).focus();
  block(form);
}

function close(form) {
  const button = element("button", { type: "button", className: "icon-button", textContent: "×", ariaLabel: "No template" });
  button.addEventListener("click", () => { dropTemplate(form); form.elements.text.focus(); });
  return button;
}

function dropTemplate(form) {
  const box = $("[data-template]", form);
  if (box.dataset.draft !== undefined) form.elements.text.value = box.dataset.draft;  // what was written before
  delete box.dataset.draft;
  box.replaceChildren();
  box.hidden = true;
  form.elements.text.hidden = false;
  block(form);
}

// --- which message is answered -----------------------------------------------------------------------------------------------

function answerMessage(form, id, words) {
  const box = $("[data-answering]", form), drop = element("button", { type: "button", className: "icon-button", textContent: "×", ariaLabel: "Answer no particular message" });
  drop.addEventListener("click", () => dropAnswer(form));
  box.replaceChildren(element("span", { textContent: words }), element("input", { type: "hidden", name: "quoted", value: id }), drop);
  box.hidden = false;
  form.elements.text.focus();
}

function dropAnswer(form) {
  const box = $("[data-answering]", form);
  box?.replaceChildren();
  if (box) box.hidden = true;
}

// --- who is writing ----------------------------------------------------------------------------------------------------------

const TOLD_EVERY = 4_000, SHOWN_FOR = 8_000;  // milliseconds; a notice may be lost, so what is shown ends by itself
let told = 0;
function tellTyping(form) {
  if (form.dataset.mode === "note" || !form.elements.text.value.trim() || Date.now() - told < TOLD_EVERY) return;
  told = Date.now();
  fetch(`/tickets/${form.dataset.ticket}/typing`, { method: "POST", headers: { "X-CSRF-Token": csrf } }).catch(() => {});  // nobody is owed it
}

let writing;
function showTyping({ detail }) {
  const box = $(`[data-composer][data-ticket="${Number(detail.ticket_id)}"] [data-writing]`);
  if (!box) return;
  clearTimeout(writing);
  box.hidden = !detail.typing;
  if (detail.typing) writing = setTimeout(() => { box.hidden = true; }, SHOWN_FOR);
}

// --- when it is looked at --------------------------------------------------------------------------------------------------

const forms = () => $$("[data-composer]");
document.addEventListener("change", (event) => event.target.matches?.("[data-to]") && look(event.target.form));
document.addEventListener("input", (event) => event.target.matches?.("[data-composer] textarea") && (countParts(event.target.form, chosen(event.target.form)), tellTyping(event.target.form)));
document.addEventListener("hub:typing", showTyping);
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-pick-template], [data-answer]");
  if (!button) return;
  if (button.dataset.answer) { const form = forms()[0]; if (form) answerMessage(form, button.dataset.answer, button.dataset.words); }
  else pickTemplate(button.closest("form"));
});
document.addEventListener("hub:composer", (event) => look(event.target));  // the page was drawn again, or another mode chosen
document.addEventListener("hub:sent", (event) => {
  const box = $("[data-template]", event.target);
  if (box) delete box.dataset.draft;  // it has gone
  dropAnswer(event.target);
  dropTemplate(event.target);
  const goes = event.target.elements.continues; if (goes) goes.checked = false;
});
setInterval(() => forms().forEach((form) => showWindow(form, chosen(form))), 30_000);
forms().forEach(look);
