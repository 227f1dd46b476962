// --- what this page says of the widget, and how it looks ---

const HUB = new URL(script.src).origin;
const CHANNEL = script.dataset.channel || 'chat';
const STORE = `hub-chat:${HUB}/${CHANNEL}`;
// The hub's own page: the widget is all of it
const PAGE = script.dataset.page !== undefined;
// ms, where streaming does not work
const POLL = 4000;
// ms between two looks from a hidden tab
const IDLE = 30000;
// ms without a byte: the stream is dead (the hub speaks every 15 s)
const SILENCE = 40000;
// ms between two words that somebody types
const TYPING = 3000;
const PHONE = matchMedia('(max-width: 480px)');
const HINT = `If nothing can be fetched, add ${location.origin} to this site's origins in the hub's config.yaml.`;
const DARK = 'color-scheme: dark; --bg: #171c23; --soft: #252c36; --text: #e8ecf1; --faint: #a3aebb; --line: #38424f; --bad: #ffb4ab;';
const LOOK = `
:host { all: initial; position: fixed; z-index: 2147483000; bottom: calc(20px + env(safe-area-inset-bottom)); inset-inline-end: 20px;
  font: 15px/1.45 system-ui, sans-serif; --accent: var(--hub-chat-accent, var(--told-accent, #1f5fbf));
  --on-accent: var(--hub-chat-on-accent, var(--told-on-accent, #fff)); color-scheme: light;
  --bg: #fff; --soft: #eef1f5; --text: #1c232c; --faint: #5a6573; --line: #d5dbe3; --bad: #b3261e; }
:host([dir=rtl]) { direction: rtl; }
:host([side=left]) { inset-inline: auto; left: 20px; }
:host([side=right]) { inset-inline: auto; right: 20px; }
@media (prefers-color-scheme: dark) { :host(:not([theme=light])) { ${DARK} } }
:host([theme=dark]) { ${DARK} }
@media print { :host { display: none; } }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
button, textarea, input, select { font: inherit; color: inherit; }
button { cursor: pointer; border: 0; background: none; padding: 0; }
:focus-visible { outline: 3px solid var(--text); outline-offset: 2px; }
svg { width: 24px; fill: none; stroke: currentColor; stroke-width: 2; stroke-linecap: round; stroke-linejoin: round; }
:host([dir=rtl]) .send svg { transform: scaleX(-1); }
.launch { position: relative; display: grid; place-items: center; width: 56px; height: 56px; margin-inline-start: auto; border-radius: 50%;
  background: var(--accent); color: var(--on-accent); box-shadow: 0 0 0 1px #fff6, 0 4px 14px #0005; }
:host([side=left]) .launch { margin-inline: 0 auto; }
:host([side=left][dir=rtl]) .launch { margin-inline: auto 0; }
.badge { position: absolute; top: -4px; inset-inline-end: -4px; min-width: 22px; padding: 0 6px; border-radius: 11px; background: #b3261e;
  color: #fff; font: 600 13px/22px system-ui, sans-serif; }
.greet { display: flex; gap: 4px; align-items: start; width: max-content; max-width: min(280px, calc(100vw - 40px)); margin: 0 0 12px;
  padding: 6px; border: 1px solid var(--line); border-radius: 14px; background: var(--bg); color: var(--text); box-shadow: 0 6px 24px #0003; }
.greet .link { padding: 6px; color: inherit; text-align: start; text-decoration: none; font-size: 15px; }
.greet .x, .head button { display: grid; padding: 6px; border-radius: 8px; }
.greet .x svg { width: 16px; }
.panel { position: relative; display: flex; flex-direction: column; width: 370px; height: min(600px, calc(100vh - 110px)); margin-bottom: 14px;
  overflow: hidden; border: 1px solid var(--line); border-radius: 14px; background: var(--bg); color: var(--text);
  box-shadow: 0 10px 40px #0004; }
.head { display: flex; align-items: center; padding: 12px 16px; background: var(--accent); color: var(--on-accent); }
.head :focus-visible { outline-color: var(--on-accent); }
h2 { flex: 1; margin: 0; font-size: 16px; overflow-wrap: anywhere; }
.log { flex: 1; display: flex; flex-direction: column; gap: 10px; min-height: 60px; padding: 16px; overflow-y: auto; overscroll-behavior: contain; }
.log:focus-visible { outline-offset: -3px; }
.welcome, .note, small, .privacy { color: var(--faint); }
.m { max-width: 85%; overflow-wrap: anywhere; }
p { width: fit-content; max-width: 100%; margin: 0; padding: 8px 12px; border-radius: 14px; background: var(--soft); white-space: pre-wrap; }
.you { align-self: flex-end; text-align: end; }
.you p { margin-inline-start: auto; background: var(--accent); color: var(--on-accent); text-align: start; }
a { color: inherit; }
small { display: block; padding: 2px 4px 0; font-size: 12px; }
.file { display: inline-block; max-width: 100%; margin: 4px 0 0; padding: 6px 10px; border: 1px solid var(--line); border-radius: 10px;
  text-align: start; overflow-wrap: anywhere; }
.chips { display: flex; flex-wrap: wrap; gap: 4px; max-height: 96px; margin-bottom: 6px; overflow-y: auto; }
.chips:empty { display: none; }
.chips .file { margin: 0; padding: 2px 8px; font-size: 13px; }
.chips .file::after { content: ' ×' / ''; }
.retry { color: var(--bad); text-decoration: underline; font-size: 13px; padding: 4px; }
.note, .typing, .privacy { padding: 6px 16px; font-size: 13px; }
.note:empty, .typing:empty { display: none; }
.note { background: var(--soft); }
.typing { color: var(--faint); }
.privacy { padding: 6px 0 0; font-size: 12px; overflow-wrap: anywhere; }
form { border-top: 1px solid var(--line); padding: 10px 12px calc(10px + env(safe-area-inset-bottom)); }
.row { display: flex; align-items: flex-end; gap: 6px; }
textarea, input, select { flex: 1; min-width: 0; max-height: 120px; padding: 8px 10px; border: 1px solid var(--faint); border-radius: 10px;
  resize: none; background: var(--bg); font-size: 16px; }
:is(textarea, input, select):focus-visible { outline-width: 2px; outline-offset: 0; }
.fields { max-height: 38vh; margin: -4px -4px 4px; padding: 4px; overflow-y: auto; }
.fields label { display: block; margin-bottom: 6px; font-size: 13px; }
.fields input, .fields select { display: block; width: 100%; padding: 6px 10px; }
.link { align-self: flex-start; padding: 2px 0; text-decoration: underline; font-size: 13px; color: var(--faint); text-align: start; }
.link:disabled { text-decoration: none; cursor: default; }
.confirm { background: var(--soft); }
.confirm label { display: block; margin-bottom: 6px; font-size: 14px; overflow-wrap: anywhere; }
.confirm .wrong + .row { margin-top: 6px; gap: 16px; }
.confirm .digits { font-variant-numeric: tabular-nums; letter-spacing: .3em; }
.row .go { width: auto; padding: 0 14px; background: var(--accent); color: var(--on-accent); }
.row .link { width: auto; height: auto; min-height: 24px; }
.wrong { font-size: 13px; color: var(--bad); }
.wrong:not(:empty) { padding-top: 6px; }
[aria-invalid=true] { border-color: var(--bad); }
::placeholder { color: var(--faint); opacity: 1; }
.row button { display: grid; place-items: center; flex: none; width: 42px; height: 42px; border-radius: 10px; color: var(--faint); }
.row .send { background: var(--accent); color: var(--on-accent); }
.drop { position: absolute; inset: 8px; z-index: 1; display: grid; place-items: center; border: 3px dashed var(--faint); border-radius: 12px;
  background: var(--bg); opacity: .95; pointer-events: none; }
.sr { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
@media (prefers-reduced-motion: no-preference) {
  .panel, .greet { animation: rise .16s ease-out; }
  @keyframes rise { from { opacity: 0; translate: 0 12px; } }
}
@media (max-width: 480px) {
  .panel { position: fixed; inset: var(--seen-top, 0) 0 auto; width: auto; height: var(--seen, 100dvh); margin: 0; border: 0; border-radius: 0; }
  :host([open]) .launch { display: none; }
  .head { padding-top: calc(12px + env(safe-area-inset-top)); }
}
:host([page]) { position: static; }
:host([page]) .panel { position: fixed; inset: var(--seen-top, 0) 0 auto; width: min(720px, 100%); height: var(--seen, 100dvh); margin: 0 auto;
  border-radius: 0; animation: none; }
:host([page]) .launch, :host([page]) .close { display: none; }`;
const ICONS = {
  chat: 'M21 12a8 8 0 0 1-8 8H4l2-3a8 8 0 1 1 15-5z', close: 'M6 6l12 12M18 6L6 18', send: 'M4 12h15M13 6l6 6-6 6',
  clip: 'M20 11l-8.5 8.5a5 5 0 0 1-7-7L13 4a3.4 3.4 0 0 1 5 5l-8.5 8.5a1.7 1.7 0 0 1-2.5-2.5L14.5 8',
  photo: 'M4 8h3l2-3h6l2 3h3v11H4zM12 16a3 3 0 1 0 0-6 3 3 0 0 0 0 6z',
};

// Text is only ever set as text: nothing anybody wrote is read as HTML.
const el = (tag, props, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
};
const link = (label, onclick, props) => el('button', { type: 'button', className: 'link', textContent: label, onclick, ...props });
const svg = (tag, name, value, ...children) => {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  node.setAttribute(name, value);
  node.append(...children);
  return node;
};
const icon = (name) => svg('svg', 'viewBox', '0 0 24 24', svg('path', 'd', ICONS[name]));
const button = (label, name, props) => el('button', { type: 'button', title: label, ariaLabel: label, ...props }, icon(name));
const away = (href) => ({ href, target: '_blank', rel: 'noopener noreferrer nofollow' });
const isWeb = (url) => /^https?:\/\//i.test(url) && (() => { try { return Boolean(new URL(url)); } catch { return false; } })();
const linked = (text) => text.split(/(https?:\/\/[^\s<>"']*[^\s<>"'.,;:!?)\]}])/i).map((part, index) => (
  index % 2 && isWeb(part) ? el('a', { ...away(part), textContent: part }) : part));
const fill = (text, value) => text.replace('{}', () => value);
const uuid = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, '0')).join('');
const sleep = (ms, signal) => new Promise((done) => {
  if (signal?.aborted) { done(); return; }
  setTimeout(done, ms);
  signal?.addEventListener('abort', done, { once: true });
});
// Jitter, and never before the time the hub named
const later = (ms) => ms * (1 + Math.random());
const failed = (answer) => Object.assign(new Error(`HTTP ${answer.status}`), { wait: Number(answer.headers.get('Retry-After')), status: answer.status });
const json = (body) => ({ method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });
