/* Chat widget of the support hub: one file, no dependencies. How to embed it: docs/widget.md. */
(() => {
'use strict';
const script = document.currentScript;
if (!script || customElements.get('hub-chat')) return;

const HUB = new URL(script.src).origin;
const CHANNEL = script.dataset.channel || 'chat';
const TITLE = script.dataset.title || 'Chat with us';
const STORE = `hub-chat:${HUB}/${CHANNEL}`;
const POLL = 4000; // ms, where streaming does not work
const SILENCE = 40000; // ms without a byte: the stream is dead (the hub speaks every 15 s)
const MAX_FILES = 5e6; // bytes in one message
const PHONE = matchMedia('(max-width: 480px)');
const AWAY = 'We cannot be reached at the moment. What you write is kept and sent later.';
const HINT = `If nothing can be fetched, add ${location.origin} to this site's origins in the hub's config.yaml.`;
const DARK = 'color-scheme: dark; --bg: #171c23; --soft: #252c36; --text: #e8ecf1; --faint: #a3aebb; --line: #38424f; --bad: #ffb4ab;';
const CSS = `
:host { all: initial; position: fixed; z-index: 2147483000; bottom: 20px; right: 20px; font: 15px/1.45 system-ui, sans-serif;
  --accent: var(--hub-chat-accent, #1f5fbf); --on-accent: var(--hub-chat-on-accent, #fff); color-scheme: light;
  --bg: #fff; --soft: #eef1f5; --text: #1c232c; --faint: #5a6573; --line: #d5dbe3; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :host(:not([theme=light])) { ${DARK} } }
:host([theme=dark]) { ${DARK} }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
button, textarea, input { font: inherit; color: inherit; }
button { cursor: pointer; border: 0; background: none; padding: 0; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
svg { width: 24px; fill: none; stroke: currentColor; stroke-width: 2; stroke-linecap: round; stroke-linejoin: round; }
.launch { position: relative; display: grid; place-items: center; width: 56px; height: 56px; margin-left: auto; border-radius: 50%;
  background: var(--accent); color: var(--on-accent); box-shadow: 0 4px 14px #0005; }
.badge { position: absolute; top: -4px; right: -4px; min-width: 22px; padding: 0 6px; border-radius: 11px; background: #b3261e;
  color: #fff; font: 600 13px/22px system-ui, sans-serif; }
.panel { display: flex; flex-direction: column; width: 370px; height: min(600px, calc(100vh - 110px)); margin-bottom: 14px;
  overflow: hidden; border: 1px solid var(--line); border-radius: 14px; background: var(--bg); color: var(--text);
  box-shadow: 0 10px 40px #0004; }
header { display: flex; align-items: center; padding: 12px 16px; background: var(--accent); color: var(--on-accent); }
header :focus-visible { outline-color: var(--on-accent); }
h2 { flex: 1; margin: 0; font-size: 16px; }
header button { display: grid; padding: 6px; border-radius: 8px; }
.log { flex: 1; display: flex; flex-direction: column; gap: 10px; padding: 16px; overflow-y: auto; overscroll-behavior: contain; }
.welcome, .note, small { color: var(--faint); }
.m { max-width: 85%; overflow-wrap: anywhere; }
p { margin: 0; padding: 8px 12px; border-radius: 14px; background: var(--soft); white-space: pre-wrap; }
.you { align-self: flex-end; text-align: end; }
.you p { background: var(--accent); color: var(--on-accent); text-align: start; }
a { color: inherit; }
small { display: block; padding: 2px 4px 0; font-size: 12px; }
.file { display: inline-block; margin-top: 4px; padding: 6px 10px; border: 1px solid var(--line); border-radius: 10px; }
.retry { color: var(--bad); text-decoration: underline; font-size: 13px; padding: 4px; }
.note { padding: 6px 16px; font-size: 13px; }
.note:empty { display: none; }
form { border-top: 1px solid var(--line); padding: 10px 12px; }
.row { display: flex; align-items: flex-end; gap: 6px; }
textarea, input { flex: 1; min-width: 0; max-height: 120px; padding: 8px 10px; border: 1px solid var(--faint); border-radius: 10px;
  resize: none; background: var(--bg); font-size: 16px; }
.link { align-self: flex-start; padding: 2px 0; text-decoration: underline; font-size: 13px; color: var(--faint); }
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
.row button { display: grid; place-items: center; width: 42px; height: 42px; border-radius: 10px; color: var(--faint); }
.row .send { background: var(--accent); color: var(--on-accent); }
.sr { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
@media (max-width: 480px) {
  .panel { position: fixed; inset: 0; width: auto; height: 100dvh; margin: 0; border: 0; border-radius: 0; }
  :host([open]) .launch { display: none; }
}`;
const ICONS = {
  chat: 'M21 12a8 8 0 0 1-8 8H4l2-3a8 8 0 1 1 15-5z', close: 'M6 6l12 12M18 6L6 18', send: 'M4 12h15M13 6l6 6-6 6',
  clip: 'M20 11l-8.5 8.5a5 5 0 0 1-7-7L13 4a3.4 3.4 0 0 1 5 5l-8.5 8.5a1.7 1.7 0 0 1-2.5-2.5L14.5 8',
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
const link = (label, onclick) => el('button', { type: 'button', className: 'link', textContent: label, onclick });
const svg = (tag, name, value, ...children) => {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  node.setAttribute(name, value);
  node.append(...children);
  return node;
};
const button = (label, icon, props) => el('button', { type: 'button', title: label, ariaLabel: label, ...props },
  svg('svg', 'viewBox', '0 0 24 24', svg('path', 'd', ICONS[icon])));
const linked = (text) => text.split(/(https?:\/\/[^\s<>"']*[^\s<>"'.,;:!?)\]}])/i).map((part, index) => (
  index % 2 && URL.canParse?.(part)
    ? el('a', { href: part, target: '_blank', rel: 'noopener noreferrer nofollow', textContent: part }) : part));
const clock = (at) => at.toLocaleString([], {
  hour: '2-digit', minute: '2-digit', ...(at.toDateString() === new Date().toDateString() ? {} : { day: 'numeric', month: 'short' }),
});
const size = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);
const uuid = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, '0')).join('');
const sleep = (ms, signal) => new Promise((done) => {
  setTimeout(done, ms);
  signal?.addEventListener('abort', done, { once: true });
});
const later = (ms) => ms * (1 + Math.random()); // jitter, and never before the time the hub named
const failed = (answer) => Object.assign(new Error(`HTTP ${answer.status}`), { wait: Number(answer.headers.get('Retry-After')) });
const json = (body) => ({ method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });

// What this browser remembers: the visitor's token, and messages the hub has not acknowledged.
let memory = '{}'; // where the page may not use localStorage
const recall = () => {
  try { memory = localStorage.getItem(STORE) || '{}'; } catch { /* memory serves */ }
  return JSON.parse(memory);
};
const remember = (change) => {
  memory = JSON.stringify({ ...recall(), ...change });
  try { localStorage.setItem(STORE, memory); } catch { /* until the page is left */ }
};
// One tab at a time makes a session, or two would each begin a visitor of their own.
const alone = (work) => (navigator.locks ? navigator.locks.request(STORE, work) : work());

class Chat extends HTMLElement {
  messages = new Map(); // id -> message as the hub told it
  rows = new Map(); // id, or a queued message's uuid -> its element
  queue = []; // [{id, text, at, after, files?, problem?}], oldest first
  acked = new Set(); // uuids the hub has stored
  reported = new Set(); // answers the hub was told are read
  files = [];
  nap = new AbortController(); // ends the wait before the next try to send

  connectedCallback() {
    if (this.shadowRoot) return;
    const root = this.attachShadow({ mode: 'open' });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(CSS);
    root.adoptedStyleSheets = [sheet];
    if (script.dataset.theme) this.setAttribute('theme', script.dataset.theme);
    this.badge = el('span', { className: 'badge', ariaHidden: 'true' });
    this.launch = button(TITLE, 'chat', { className: 'launch', onclick: () => (this.open ? this.close() : this.show()) });
    this.launch.append(this.badge);
    this.welcome = el('div', { className: 'welcome' });
    this.log = el('div', { className: 'log', role: 'log', tabIndex: 0, ariaLabel: 'Messages' }, this.welcome);
    this.offer = link('Wrote to us before? Confirm it’s you', () => this.ask());
    this.log.append(this.offer);
    this.confirm = el('form', { className: 'confirm', hidden: true, ariaLabel: 'Confirm it’s you', noValidate: true,
      onsubmit: (event) => { event.preventDefault(); this.submit(); } });
    this.note = el('div', { className: 'note', role: 'status' });
    this.heard = el('div', { className: 'sr', role: 'status' });
    this.text = el('textarea', { rows: 1, maxLength: 10000, placeholder: 'Write a message…', ariaLabel: 'Your message',
      oninput: () => this.fit(), onkeydown: (event) => {
        if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) { event.preventDefault(); this.say(); }
      } });
    this.picker = el('input', { type: 'file', multiple: true, hidden: true, onchange: () => this.pick() });
    this.picked = el('button', { className: 'file', type: 'button', hidden: true, onclick: () => this.drop() });
    const form = el('form', { onsubmit: (event) => { event.preventDefault(); this.say(); } }, this.picked, el('div', { className: 'row' },
      this.picker, button('Attach a file', 'clip', { onclick: () => this.picker.click() }), this.text,
      button('Send', 'send', { type: 'submit', className: 'send' })));
    this.panel = el('div', { className: 'panel', role: 'dialog', ariaLabel: TITLE, hidden: true, onkeydown: (event) => this.key(event) },
      el('header', {}, el('h2', { textContent: TITLE }), button('Close chat', 'close', { onclick: () => this.close() })),
      this.log, this.note, this.confirm, form);
    root.append(this.panel, this.launch, this.heard);
    addEventListener('online', () => this.retry());
    addEventListener('storage', (event) => { if (event.key === STORE) this.adopt(true); });
    document.addEventListener('visibilitychange', () => this.listen());
    this.adopt();
  }

  // --- the session ---

  /** Take over what is remembered: at the start with what was left unsent, and after a change here or in another tab. */
  adopt(running) {
    const { visitor, token, expires = 0, queue = [], proved = '' } = recall();
    const other = visitor !== this.visitor;
    if (other || proved !== this.proved) { // show nothing of the visitor before, nor what is no longer proved
      this.stream?.abort();
      this.rows.forEach((row) => row.remove());
      [this.messages, this.rows].forEach((kept) => kept.clear());
      this.seeded = false;
      if (proved) this.settle();
    }
    if (other) {
      [this.acked, this.reported].forEach((kept) => kept.clear());
      if (this.visitor) { // what nobody in particular wrote goes with whoever this becomes
        this.queue = [];
        this.settle();
      }
    }
    Object.assign(this, { visitor, token, expires, proved });
    this.offers();
    const own = this.own();
    if (!running) this.queue.push(...queue.filter((entry) => !own.has(entry.id))); // another tab sends its own
    this.paint();
    this.flush();
    this.listen();
  }

  /** Ask the hub for a session: a new one, the remembered one renewed, or one identified by the site's token. */
  session(jwt) {
    return alone(async () => {
      const before = recall();
      // Another tab may have been faster.
      if (jwt === undefined && before.token !== this.token && before.expires * 1000 > Date.now()) return this.adopt(true);
      const answer = await fetch(`${HUB}/chat/${CHANNEL}/session`, json({ resume: before.token, identify: jwt }));
      if (!answer.ok) throw failed(answer);
      const told = await answer.json();
      if (told.problem) console.error(`HubChat identify: ${told.problem}`);
      // What one person had not sent yet must never be sent as another.
      this.begin(told, !before.visitor || before.visitor === told.visitor ? {} : { queue: [], typed: undefined });
    });
  }

  begin({ token, visitor, expires, welcome, proved, codes, identified }, more) {
    remember({ token, visitor, expires, welcome, proved: proved.join(), offer: codes.length > 0 && !identified, ...more });
    this.adopt(true);
  }

  /** The site's token where it gave a function that makes one. */
  proof() { return typeof this.identity === 'function' ? this.identity() : undefined; }

  /** One request as this visitor; a token the hub no longer takes is renewed once. */
  async call(path, init = {}, again = true) {
    if (!this.token || this.expires * 1000 < Date.now() + 60000) await this.session(await this.proof());
    const answer = await fetch(HUB + path, { ...init, headers: { ...init.headers, Authorization: `Bearer ${this.token}` } });
    if (answer.status !== 401 || !again) return answer;
    await this.session(await this.proof());
    return this.call(path, init, false);
  }

  async identify({ token = '' } = {}) {
    this.identity = token;
    try {
      await this.session(typeof token === 'function' ? await token() : token);
    } catch (error) {
      console.error(`HubChat identify: ${error.message}. ${HINT}`);
    }
  }

  async logout() {
    this.identity = undefined;
    await Promise.race([this.flush(), sleep(3000)]);
    remember({ token: undefined, visitor: undefined, expires: 0, queue: [], proved: undefined, typed: undefined });
    this.close();
    this.adopt(true);
  }

  // --- one-time codes ---

  /** Offer a code to whoever is nobody yet; agents and the page may ask anybody. */
  offers() { this.offer.hidden = Boolean(this.proved || !this.confirm.hidden || !recall().offer); }

  /** Ask for the address a code is to go to. */
  ask() {
    this.code = undefined;
    this.fill('Your e-mail address or phone number. We send a code there.', 'Send code', { type: 'text', inputMode: 'email',
      autocomplete: 'email', maxLength: 254, autocapitalize: 'none', spellcheck: false }, link('Cancel', () => this.settle(true)));
    this.field.focus();
  }

  /** Ask for the code itself; without taking the keyboard from somebody who writes, where it was not they who asked. */
  expect(code, asked) {
    if (!asked && (this.code?.id === code.id || this.dismissed === code.id)) return;
    this.code = code;
    const again = link('', () => this.order({ again: code.id }));
    let wait = asked ? code.resend : 0;
    const count = () => {
      again.disabled = wait > 0;
      again.textContent = wait > 0 ? `Send again in ${wait} s` : 'Send again';
      if (wait-- > 0) setTimeout(count, 1000);
    };
    count();
    this.fill(`We sent a code to ${code.sent_to}. Type it in here to confirm it’s you.`, 'Confirm', { type: 'text', inputMode: 'numeric',
      autocomplete: 'one-time-code', maxLength: 12, className: 'digits' }, again, link('Cancel', () => this.settle(true)));
    if (asked) this.field.focus();
    else this.heard.textContent = `Please confirm it’s you: we sent a code to ${code.sent_to}.`;
  }

  fill(label, action, field, ...links) {
    this.wrong = el('div', { className: 'wrong', id: 'wrong', role: 'alert' });
    this.field = el('input', { id: 'field', required: true, 'aria-describedby': 'wrong', ...field });
    this.go = el('button', { type: 'submit', className: 'go', textContent: action });
    this.confirm.replaceChildren(el('label', { for: 'field', textContent: label }), el('div', { className: 'row' }, this.field, this.go),
      this.wrong, el('div', { className: 'row' }, ...links));
    this.confirm.hidden = false;
    this.offers();
    this.paint();
  }

  /** Put the form away. */
  settle(dismissed) {
    if (dismissed) this.dismissed = this.code?.id;
    this.code = undefined;
    if (this.confirm.hidden) return;
    const inside = this.confirm.contains(this.shadowRoot.activeElement);
    this.confirm.hidden = true;
    this.confirm.replaceChildren();
    this.offers();
    if (inside && this.open) this.text.focus();
  }

  submit() {
    const typed = this.field.value.trim();
    if (!typed) { this.field.focus(); return; }
    if (this.code) { this.prove(typed); return; }
    const kind = typed.includes('@') ? 'email' : 'phone';
    this.order({ kind, value: typed }).then((done) => done && remember({ typed: { [kind]: typed } })); // what was said, agents may know
  }

  /** Have a code sent. */
  async order(body) {
    const told = await this.post('', body);
    if (told) this.expect(told, true);
    return told;
  }

  async prove(code) {
    const { id, sent_to: to } = this.code;
    const told = await this.post(`/${id}`, { code });
    if (!told) return;
    this.settle();
    this.begin(told);
    this.note.textContent = `Thank you. ${to} is confirmed.`;
    this.dispatchEvent(new CustomEvent('verified', { detail: { sent_to: to }, bubbles: true, composed: true }));
  }

  /** One request about codes; says by itself what went wrong. */
  async post(path, body) {
    if (this.busy) return undefined;
    this.busy = this.go.disabled = true;
    const answer = await this.call(`/chat/${CHANNEL}/code${path}`, json(body)).catch(() => ({}));
    const told = await answer.json?.().catch(() => ({})) || {};
    this.busy = this.go.disabled = false;
    if (answer.ok) return told;
    const left = told.tries_left ? ` ${told.tries_left} tries left.` : '';
    this.wrong.textContent = `${told.error || AWAY}${left}`;
    this.field.ariaInvalid = 'true';
    this.field.select();
    return undefined;
  }

  // --- receiving ---

  /** Keep a stream while this page is seen and there is something to hear of. Hidden tabs let go: browsers have few connections. */
  async listen() {
    const wanted = () => this.token && document.visibilityState === 'visible' && (this.messages.size || this.open || !this.seeded);
    if (!wanted()) { this.stream?.abort(); return; }
    if (this.stream && !this.stream.signal.aborted) return;
    const { signal } = this.stream = new AbortController();
    for (let failures = 0; !signal.aborted;) {
      try {
        if (failures < 2 || failures % 8 === 0) await this.follow(signal);
        else {
          for (let after = this.after(), more = true; more && !signal.aborted;) {
            const answer = await this.call(`/chat/${CHANNEL}/messages?after=${after}`);
            if (!answer.ok) throw failed(answer);
            const page = await answer.json();
            this.take(page);
            more = after && page.more; // from nothing, the last page is all that is wanted
            after = page.messages.at(-1)?.id;
          }
        }
        if (this.note.textContent === AWAY) this.note.textContent = '';
        failures = failures < 2 ? 0 : failures + 1;
      } catch (error) {
        failures += 1;
        if (failures > 2) this.note.textContent = AWAY;
      }
      if (!signal.aborted) await sleep(later(failures > 1 ? POLL : 500), signal);
      if (!wanted()) this.stream.abort();
    }
  }

  /** The id after which to ask: before the first answer that was still on its way when last seen, else the last. */
  after() {
    const all = [...this.messages.values()];
    const open = all.filter((m) => m.from === 'agent' && !m.ref).map((m) => m.id - 1);
    return this.seeded ? Math.min(Math.max(0, ...this.messages.keys()), ...open) : 0;
  }

  /** Read the live stream until it ends; an error if it never began. */
  async follow(outer) {
    const inner = new AbortController();
    const stop = () => inner.abort();
    outer.addEventListener('abort', stop, { once: true });
    let watchdog = setTimeout(stop, POLL * 2); // a proxy that buffers never lets the first frame through
    let lived = false;
    try {
      const answer = await this.call(`/chat/${CHANNEL}/stream?after=${this.after()}`, { signal: inner.signal });
      if (!answer.ok) throw failed(answer);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let buffer = '', part; !(part = await reader.read()).done;) {
        lived = true;
        clearTimeout(watchdog);
        watchdog = setTimeout(stop, SILENCE);
        const frames = (buffer + part.value).split('\n\n');
        buffer = frames.pop();
        if (outer.aborted) return;
        frames.filter((frame) => frame.startsWith('data: ')).forEach((frame) => this.take(JSON.parse(frame.slice(6))));
      }
    } catch (error) {
      if (!lived) throw error;
    } finally {
      clearTimeout(watchdog);
      stop();
    }
  }

  take({ messages, code }) {
    if (code) this.expect(code);
    const fresh = messages.filter((m) => m.from === 'agent' && !m.read && !this.messages.has(m.id)).length;
    messages.forEach((m) => this.messages.set(m.id, m));
    const taken = new Set();
    this.queue = this.queue.filter((entry) => { // what the hub lists is no longer queued
      const match = [...this.messages.values()].find((m) => m.from === 'you' && m.id > entry.after && m.text === entry.text
        && m.attachments.length === (entry.files || []).length && !taken.has(m.id));
      if (!match) return true;
      taken.add(match.id);
      this.acked.add(entry.id);
      this.rows.get(entry.id)?.remove();
      return false;
    });
    this.keep();
    const first = !this.seeded;
    this.seeded = true;
    this.paint(first);
    if (this.open) this.read();
    else if (fresh) this.heard.textContent = `New chat messages: ${fresh}`;
  }

  /** Tell the hub which answers were shown. */
  async read() {
    const refs = this.unread().map((m) => m.ref).filter(Boolean).slice(0, 100);
    if (!refs.length || document.visibilityState !== 'visible') return;
    refs.forEach((ref) => this.reported.add(ref));
    const told = await this.call(`/in/${CHANNEL}`, json({ type: 'read', refs })).catch(() => ({}));
    if (!told.ok) refs.forEach((ref) => this.reported.delete(ref)); // with the next message, then
  }

  unread() { return [...this.messages.values()].filter((m) => m.from === 'agent' && !m.read && !this.reported.has(m.ref)); }

  // --- sending ---

  say() {
    const text = this.text.value.trim();
    if (!text && !this.files.length) return;
    const files = this.files.length ? this.files : undefined;
    this.queue.push({ id: uuid(), text, files, at: Date.now(), after: Math.max(0, ...this.messages.keys()) });
    this.text.value = '';
    this.drop();
    this.fit();
    this.keep();
    this.paint();
    this.log.scrollTop = this.log.scrollHeight;
    this.flush();
  }

  /** Keep for after a reload what is not acknowledged. Files are too big for that: they live as long as the page. */
  keep() {
    const own = this.own();
    const others = (recall().queue || []).filter((entry) => !own.has(entry.id)); // of other tabs
    remember({ queue: [...others, ...this.queue.filter((entry) => !entry.files && !this.acked.has(entry.id))] });
  }

  own() { return new Set([...this.acked, ...this.queue.map((entry) => entry.id)]); }

  flush() {
    this.flushing ??= this.empty().finally(() => { this.flushing = undefined; });
    return this.flushing;
  }

  /** Send what is queued, in order, one at a time; a repeat carries the same id and so is stored once. */
  async empty() {
    for (let tries = 0, entry; (entry = this.queue.find((one) => !this.acked.has(one.id) && one.problem !== 'refused'));) {
      let wait = Math.min(30, 2 ** tries);
      try {
        if (!this.token) await this.session(await this.proof());
        if (!this.queue.includes(entry)) continue; // it was another visitor's
        const { id, text, files } = entry;
        const answer = await this.call(`/in/${CHANNEL}`, json({ id, text, files, ...recall().typed }));
        if (answer.ok) {
          this.acked.add(id);
          this.keep();
          this.paint();
          this.listen();
          tries = 0;
          continue;
        }
        if (answer.status < 500 && ![401, 429].includes(answer.status)) { entry.problem = 'refused'; this.paint(); continue; }
        throw failed(answer);
      } catch (error) {
        wait = error.wait || wait;
        tries += error.wait ? 0.25 : 1; // the hub answers, and asks for patience
      }
      if (tries > 3) entry.problem = 'away';
      this.paint();
      this.nap = new AbortController();
      await sleep(later(wait * 1000), this.nap.signal);
    }
  }

  retry() {
    this.queue.forEach((entry) => { delete entry.problem; });
    this.nap.abort();
    this.paint();
    this.flush();
  }

  async pick() {
    const files = [...this.picker.files].filter((file) => file.size).slice(0, 10);
    this.picker.value = '';
    const fits = files.reduce((sum, file) => sum + file.size, 0) <= MAX_FILES;
    this.note.textContent = fits ? '' : `The files of a message may have ${size(MAX_FILES)} together.`;
    if (!fits) return;
    this.files = await Promise.all(files.map((file) => new Promise((done, fail) => {
      const reader = new FileReader();
      reader.onload = () => done({ name: file.name, type: file.type, data: reader.result.slice(reader.result.indexOf(',') + 1) });
      reader.onerror = fail;
      reader.readAsDataURL(file);
    })));
    this.picked.textContent = `Remove ${files.map((file) => file.name).join(', ')}`;
    this.picked.hidden = !files.length;
    this.text.focus();
  }

  drop() {
    this.files = [];
    this.picked.hidden = true;
  }

  async download(file) {
    const answer = await this.call(file.url).catch(() => ({}));
    if (!answer.ok) { this.note.textContent = 'This file cannot be fetched.'; return; }
    const href = URL.createObjectURL(await answer.blob());
    el('a', { href, download: file.name }).click(); // saved, never opened: it would run as part of this site
    setTimeout(() => URL.revokeObjectURL(href), 60000);
  }

  // --- showing ---

  paint(quiet) {
    const atEnd = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 80;
    this.log.ariaLive = quiet ? 'off' : 'polite'; // a history is not news
    const { welcome } = recall();
    if (this.welcome.textContent !== (welcome || '')) this.welcome.textContent = welcome || '';
    let previous = this.offer;
    for (const m of [...[...this.messages.values()].sort((a, b) => a.id - b.id), ...this.queue]) {
      const state = JSON.stringify([m.problem, this.acked.has(m.id), m.attachments]);
      let row = this.rows.get(m.id);
      if (row?.state !== state) {
        row?.remove();
        row = Object.assign(this.row(m), { state });
        this.rows.set(m.id, row);
      }
      if (previous.nextSibling !== row) previous.after(row);
      previous = row;
    }
    if (atEnd || quiet) this.log.scrollTop = this.log.scrollHeight;
    const unread = this.open ? 0 : this.unread().length + (this.code ? 1 : 0);
    this.badge.textContent = unread > 9 ? '9+' : unread;
    this.badge.hidden = !unread;
    this.launch.ariaLabel = unread ? `${TITLE}, ${unread} unread` : this.open ? 'Close chat' : TITLE;
    this.launch.ariaExpanded = String(Boolean(this.open));
  }

  row(m) {
    const mine = m.from !== 'agent';
    const who = mine ? 'You' : m.name || 'Support';
    const at = new Date(m.at);
    const row = el('div', { className: mine ? 'm you' : 'm' }, el('span', { className: 'sr', textContent: `${who}: ` }));
    if (m.text) row.append(el('p', {}, ...linked(m.text)));
    for (const file of m.attachments || m.files || []) {
      row.append(file.url ? el('button', { className: 'file', type: 'button', textContent: `${file.name} (${size(file.size)})`,
        onclick: () => this.download(file) }) : el('span', { className: 'file', textContent: file.name }));
    }
    const state = m.from ? '' : this.acked.has(m.id) ? 'Sent · ' : 'Sending… · ';
    row.append(m.problem ? el('button', { className: 'retry', type: 'button', onclick: () => this.retry(),
      textContent: `Not sent${m.problem === 'refused' ? ' (refused)' : ''} – tap to retry` })
      : el('small', {}, mine ? state : `${who} · `, el('time', { dateTime: at.toISOString(), textContent: clock(at) })));
    return row;
  }

  fit() {
    this.text.style.height = 'auto';
    this.text.style.height = `${this.text.scrollHeight + 2}px`;
  }

  async show() {
    if (this.open) return;
    this.open = true;
    this.setAttribute('open', '');
    this.panel.hidden = false;
    this.panel.ariaModal = String(PHONE.matches);
    this.paint(true);
    this.text.focus();
    this.read();
    try {
      if (!this.token) await this.session(await this.proof());
    } catch (error) {
      this.note.textContent = AWAY;
      console.error(`HubChat: ${error.message}. ${HINT}`);
    }
    this.listen();
  }

  close() {
    if (!this.open) return;
    this.open = false;
    this.removeAttribute('open');
    this.panel.hidden = true;
    this.paint();
    this.launch.focus();
  }

  key(event) {
    if (event.key === 'Escape') { event.stopPropagation(); this.close(); }
    if (event.key !== 'Tab' || !PHONE.matches) return;
    // Full screen: what lies beneath cannot be seen, so focus must not wander there.
    const stops = [...this.panel.querySelectorAll('button, textarea, input, a, [tabindex]')].filter((node) => node.offsetParent);
    const [from, to] = event.shiftKey ? [stops[0], stops.at(-1)] : [stops.at(-1), stops[0]];
    if (this.shadowRoot.activeElement === from) { event.preventDefault(); to.focus(); }
  }
}

customElements.define('hub-chat', Chat);
const chat = document.createElement('hub-chat');
const actions = {
  open: () => chat.show(), close: () => chat.close(), identify: (options) => chat.identify(options), logout: () => chat.logout(),
  confirm: () => chat.show().then(() => chat.ask()),
  on: (heard) => Object.entries(heard).forEach(([name, hear]) => chat.addEventListener(name, (event) => hear(event.detail))),
};
const start = () => {
  document.body.append(chat);
  const early = window.HubChat?.q || [];
  window.HubChat = (action, options) => (Object.hasOwn(actions, action) ? actions[action](options)
    : console.error(`HubChat: there is no action ${action}`));
  [...early].forEach((call) => window.HubChat(...call));
};
if (document.body) start();
else addEventListener('DOMContentLoaded', start);
})();
