// --- showing ---

class Chat extends Sending {
  connectedCallback() {
    // A page that replaced its body put the same widget back
    if (this.shadowRoot) return;
    const root = this.attachShadow({ mode: 'open' });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(LOOK);
    root.adoptedStyleSheets = [sheet];
    this.toggleAttribute('page', PAGE);
    this.setAttribute('role', 'region');
    this.badge = el('span', { className: 'badge', ariaHidden: 'true' });
    this.launch = el('button', { type: 'button', className: 'launch', onclick: () => this.toggle() }, icon('chat'), this.badge);
    this.greeting = el('div', { className: 'greet', hidden: true });
    this.welcome = el('div', { className: 'welcome', dir: 'auto' });
    this.offer = link('', () => this.ask());
    this.log = el('div', { className: 'log', role: 'log', tabIndex: 0 }, this.welcome, this.offer);
    this.confirm = el('form', { className: 'confirm', hidden: true, noValidate: true,
      onsubmit: (event) => { event.preventDefault(); this.submit(); } });
    this.typing = el('div', { className: 'typing', ariaLive: 'polite' });
    this.hours = el('div', { className: 'note', dir: 'auto' });
    this.note = el('div', { className: 'note', role: 'status' });
    this.heard = el('div', { className: 'sr', role: 'status' });
    this.heading = el('h2', { dir: 'auto' });
    this.fields = el('div', { className: 'fields' });
    this.chips = el('div', { className: 'chips' });
    this.privacy = el('div', { className: 'privacy', dir: 'auto' });
    this.dropzone = el('div', { className: 'drop', hidden: true });
    this.text = el('textarea', { rows: 1, maxLength: 10000, onpaste: (event) => this.pasted(event),
      oninput: () => { this.fit(); this.type(); }, onkeydown: (event) => {
        if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) { event.preventDefault(); this.say(); }
      } });
    const picker = (props) => el('input', { type: 'file', multiple: true, hidden: true, ...props,
      onchange: ({ target }) => { this.add(target.files); target.value = ''; } });
    this.picker = picker();
    this.camera = picker({ accept: 'image/*', capture: 'environment' });
    this.named = {
      attach: button('', 'clip', { onclick: () => this.picker.click() }), photo: button('', 'photo', { onclick: () => this.camera.click() }),
      send: button('', 'send', { type: 'submit', className: 'send' }), close: button('', 'close', { className: 'close', onclick: () => this.close() }),
    };
    const { attach, photo, send, close } = this.named;
    const form = el('form', { noValidate: true, onsubmit: (event) => { event.preventDefault(); this.say(); } }, this.fields, this.chips,
      el('div', { className: 'row' }, this.picker, this.camera, attach, photo, this.text, send), this.privacy);
    this.panel = el('div', { className: 'panel', role: 'dialog', hidden: true, onkeydown: (event) => this.key(event) },
      el('div', { className: 'head' }, this.heading, close), this.log, this.typing, this.hours, this.note, this.confirm, form, this.dropzone);
    for (const name of ['dragenter', 'dragover', 'dragleave', 'drop']) this.panel.addEventListener(name, (event) => this.dragged(event));
    root.append(this.greeting, this.panel, this.launch, this.heard);
    addEventListener('online', () => { this.hush('offline'); this.retry(); this.relisten(); });
    addEventListener('offline', () => { this.notify('offline'); this.stream?.abort(); this.paint(); });
    addEventListener('storage', (event) => { if (event.key === STORE) this.adopt(true); });
    document.addEventListener('visibilitychange', () => { this.paint(); this.read(); this.relisten(); });
    for (const name of ['resize', 'scroll']) globalThis.visualViewport?.addEventListener(name, () => this.frame());
    this.frame();
    this.dress();
    this.adopt();
    if (navigator.onLine === false) this.notify('offline');
    this.configure();
    if (PAGE) this.resume().finally(() => this.show());
  }

  /** Put on what is configured: words, direction, side, colours. */
  dress() {
    const { config, language } = this;
    const title = this.told(config.title) || this.t('title');
    this.lang = language;
    this.dir = RTL.includes(language) ? 'rtl' : 'ltr';
    this.ariaLabel = title;
    this.heading.textContent = title;
    this.panel.ariaLabel = title;
    this.log.ariaLabel = this.t('messages');
    this.offer.textContent = this.t('offer');
    this.confirm.ariaLabel = this.t('confirm');
    this.text.ariaLabel = this.t('message');
    this.text.placeholder = this.t('write');
    this.fit();
    this.dropzone.textContent = this.t('attach');
    for (const [name, node] of Object.entries(this.named)) node.title = node.ariaLabel = this.t(name);
    if (['left', 'right'].includes(config.position)) this.setAttribute('side', config.position);
    if (config.theme) this.setAttribute('theme', config.theme);
    this.picker.accept = config.file_types || '';
    this.named.photo.hidden = !matchMedia('(pointer: coarse)').matches || !takes(config.file_types, { name: 'photo.jpg', type: 'image/jpeg' });
    const { text, url } = config.privacy || {};
    const said = this.told(text);
    this.privacy.hidden = !said && !url;
    this.privacy.replaceChildren(url && isWeb(url) ? el('a', { ...away(url), textContent: said || new URL(url).host }) : said);
    this.tint(config.accent);
    // Their words too
    this.rows.forEach((row) => row.remove());
    this.rows.clear();
    this.paint(true);
    this.greet(config.greeting);
  }

  /** The accent, and on it whichever of white and black is read better (WCAG 2.2, contrast ratio). */
  tint(accent) {
    if (accent && CSS.supports('color', accent)) this.style.setProperty('--told-accent', accent);
    const rgb = getComputedStyle(this.launch).backgroundColor.match(/^rgba?\((\d+), (\d+), (\d+)/);
    if (!rgb) return;
    const [r, g, b] = rgb.slice(1).map((part) => part / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    const light = 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
    this.style.setProperty('--told-on-accent', 1.05 / light >= light / 0.05 ? '#fff' : '#000');
  }

  /** Greet once, whoever has not written and looks at the page. */
  greet(greeting) {
    if (this.waiter || !greeting || recall().greeted || PAGE) return;
    this.waiter = setTimeout(() => {
      if (this.open || this.messages.size || this.queue.length || recall().greeted) return;
      const text = this.told(greeting.text);
      const gone = () => { this.greeting.hidden = true; this.launch.focus(); };
      this.greeting.replaceChildren(link(text, () => this.show(), { dir: 'auto' }),
        button(this.t('close'), 'close', { className: 'x', onclick: gone }));
      this.greeting.hidden = false;
      this.heard.textContent = text;
      remember({ greeted: true });
    }, 1000 * (greeting.after_seconds || 0));
  }

  /** Say how things stand; `hush` takes it back once it is over. */
  notify(key, value) {
    this.noted = key;
    this.note.textContent = this.t(key, value);
  }

  hush(...keys) { if (keys.includes(this.noted)) this.note.textContent = this.noted = ''; }

  paint(quiet) {
    const atEnd = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 80;
    // A history is not news
    this.log.ariaLive = quiet ? 'off' : 'polite';
    const welcome = this.told(this.config.welcome) || recall().welcome || '';
    if (this.welcome.textContent !== welcome) this.welcome.textContent = welcome;
    this.asks();
    const closed = this.closed() ? this.away() : '';
    if (this.hours.textContent !== closed) this.hours.textContent = closed;
    const all = [...[...this.messages.values()].sort((a, b) => a.id - b.id), ...this.queue];
    const last = all.findLast((m) => m.from === 'you');
    let previous = this.offer;
    for (const m of all) {
      const mark = m.from === 'agent' ? '' : m.from ? (m === last ? (m.status === 'read' ? 'seen' : 'sent') : '')
        : this.acked.has(m.id) ? 'sent' : navigator.onLine === false ? 'waiting' : 'sending';
      const state = JSON.stringify([m.problem, mark, m.attachments, m.text]);
      let row = this.rows.get(m.id);
      if (row?.state !== state) {
        row?.remove();
        row = Object.assign(this.row(m, mark), { state });
        this.rows.set(m.id, row);
      }
      if (previous.nextSibling !== row) previous.after(row);
      previous = row;
    }
    if (atEnd || quiet) this.log.scrollTop = this.log.scrollHeight;
    const unread = this.watched() ? 0 : this.unread().length + (this.code && !this.open ? 1 : 0);
    this.badge.textContent = unread > 9 ? '9+' : unread;
    this.badge.hidden = !unread;
    const title = this.heading.textContent;
    this.launch.ariaLabel = unread ? `${title}, ${this.t('unread', unread)}` : this.open ? this.t('close') : title;
    this.launch.ariaExpanded = String(Boolean(this.open));
    this.count(unread);
  }

  /** Show in the page's title what is unread, and tell the page; the page may change its title meanwhile. */
  count(unread) {
    const own = this.counted ? `(${this.counted}) ` : '';
    const bare = own && document.title.startsWith(own) ? document.title.slice(own.length) : document.title;
    const title = unread ? `(${unread}) ${bare}` : bare;
    if (document.title !== title) document.title = title;
    if (unread !== (this.counted || 0)) { this.counted = unread; this.tell('unread', { count: unread }); }
  }

  away() {
    const { text, opens_at: at } = this.config.hours;
    const soon = Date.parse(at) - Date.now() < 6 * 864e5;
    const back = at && new Date(at).toLocaleString(this.locale, { hour: '2-digit', minute: '2-digit',
      ...(soon ? { weekday: 'long' } : { day: 'numeric', month: 'long' }) });
    const mail = this.wants().some(({ name }) => name === 'email');
    return [this.told(text) || this.t('closed'), back && this.t('opens', back), mail && this.t('leave')].filter(Boolean).join(' ');
  }

  row(m, mark) {
    const mine = m.from !== 'agent';
    const who = mine ? this.t('you') : m.name || this.t('support');
    const at = new Date(m.at);
    const clock = at.toLocaleString(this.locale, { hour: '2-digit', minute: '2-digit',
      ...(at.toDateString() === new Date().toDateString() ? {} : { day: 'numeric', month: 'short' }) });
    const row = el('div', { className: mine ? 'm you' : 'm' }, el('span', { className: 'sr', textContent: `${who}: ` }));
    if (m.text) row.append(el('p', { dir: 'auto' }, ...linked(m.text)));
    for (const file of m.attachments || m.files || []) {
      const told = `${file.name} (${this.size(file.size)})`;
      row.append(file.url ? el('button', { className: 'file', type: 'button', textContent: told, onclick: () => this.download(file) })
        : el('span', { className: 'file', textContent: told }));
    }
    row.append(m.problem ? el('button', { className: 'retry', type: 'button', onclick: () => this.retry(),
      textContent: this.t(m.problem === 'refused' ? 'refused' : 'retry') })
      : el('small', {}, mine ? mark && `${this.t(mark)} · ` : `${who} · `, el('time', { dateTime: at.toISOString(), textContent: clock })));
    return row;
  }

  fit() {
    // Of what is written, once something is
    this.text.dir = this.text.value ? 'auto' : this.dir;
    if (!this.open) return;
    this.text.style.height = 'auto';
    this.text.style.height = `${this.text.scrollHeight + 2}px`;
  }

  /** On a phone, keep the panel to what the keyboard leaves. */
  frame() {
    const seen = globalThis.visualViewport;
    if (!seen) return;
    this.panel.style.setProperty('--seen', `${seen.height}px`);
    this.panel.style.setProperty('--seen-top', `${seen.offsetTop}px`);
  }

  toggle() { return this.open ? this.close() : this.show(); }

  async show() {
    if (this.open) return;
    this.before = document.activeElement;
    this.open = true;
    this.setAttribute('open', '');
    this.panel.hidden = false;
    this.greeting.hidden = true;
    remember({ greeted: true });
    this.panel.ariaModal = String(PHONE.matches || PAGE);
    this.tint(this.config.accent);
    this.paint(true);
    this.fit();
    (this.fields.querySelector('[name]') || this.text).focus();
    this.read();
    this.tell('open');
    if (Date.now() - this.asked > 60000) this.configure();
    try {
      if (!this.token) await this.session(await this.proof());
    } catch (error) {
      this.notify(navigator.onLine === false ? 'offline' : 'away');
      console.error(`HubChat: ${error.message}. ${HINT}`);
    }
    this.listen();
  }

  close() {
    if (!this.open || PAGE) return;
    const inside = this.shadowRoot.activeElement;
    this.open = false;
    this.removeAttribute('open');
    this.panel.hidden = true;
    this.paint();
    const { before } = this;
    if (inside) (before?.isConnected && before !== this && before !== document.body ? before : this.launch).focus();
    this.tell('close');
  }

  key(event) {
    if (event.key === 'Escape') { event.stopPropagation(); this.close(); }
    if (event.key !== 'Tab' || !PHONE.matches) return;
    // Full screen: what lies beneath cannot be seen, so focus must not wander there.
    const stops = [...this.panel.querySelectorAll('button, textarea, input, select, a, [tabindex]')].filter((node) => node.offsetParent && !node.disabled);
    const [from, to] = event.shiftKey ? [stops[0], stops.at(-1)] : [stops.at(-1), stops[0]];
    if (this.shadowRoot.activeElement === from) { event.preventDefault(); to.focus(); }
  }
}

customElements.define('hub-chat', Chat);
const chat = document.createElement('hub-chat');
const actions = {
  open: () => chat.show(), close: () => chat.close(), toggle: () => chat.toggle(),
  identify: (options) => chat.identify(options), logout: () => chat.logout(),
  confirm: () => chat.show().then(() => chat.ask()),
  send: (what) => { chat.text.value = String(what?.text ?? what ?? ''); chat.say(); },
  config: (options) => { Object.assign(chat.overrides, options); chat.dress(); },
  on: (heard) => Object.entries(heard).forEach(([name, hear]) => chat.addEventListener(name, (event) => hear(event.detail))),
};
const start = () => {
  document.body.append(chat);
  // Pages that replace their body on the way to another one keep the chat.
  const stay = () => { if (document.body && !chat.isConnected) { document.body.append(chat); watch(); } };
  const observer = new MutationObserver(stay);
  const watch = () => [document.documentElement, document.body].forEach((node) => observer.observe(node, { childList: true }));
  watch();
  const early = window.HubChat?.q || [];
  window.HubChat = (action, options) => (Object.hasOwn(actions, action) ? actions[action](options)
    : console.error(`HubChat: there is no action ${action}`));
  [...early].forEach((call) => window.HubChat(...call));
};
if (document.body) start();
else addEventListener('DOMContentLoaded', start);
