// --- what this browser remembers: the visitor's token, and messages the hub has not acknowledged ---

// Where the page may not use localStorage
let memory = '{}';
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

class Session extends HTMLElement {
  // id -> message as the hub told it
  messages = new Map();
  // id, or a queued message's uuid -> its element
  rows = new Map();
  // [{id, text, at, after, page, fields?, files?, problem?}], oldest first
  queue = [];
  // Uuids the hub has stored
  acked = new Set();
  // Answers the hub was told are read
  reported = new Set();
  // Answers the hub was told have arrived
  arrived = new Set();
  // What the page set by HubChat('config')
  overrides = {};

  /** What the hub's configuration says, over it what the script tag says, over it what the page says. */
  get config() {
    const { title, theme, accent, position } = script.dataset;
    const tag = Object.entries({ title, theme, accent, position }).filter(([, value]) => value);
    return { ...recall().config, ...Object.fromEntries(tag), ...this.overrides };
  }

  get language() {
    return known(this.overrides.language, script.dataset.language, document.documentElement.lang, ...(navigator.languages || []), recall().config?.language);
  }

  /** The language as this visitor's region writes dates and numbers. */
  get locale() { return (navigator.languages || []).find((tag) => known(tag) === this.language && tag.startsWith(this.language)) || this.language; }

  /** One of the widget's own words. */
  t(key, value) { return fill(WORDS[this.language].split('|')[KEYS.indexOf(key)], value); }

  /** A text of the configuration: said once, or {language: text}. */
  told(text) { return typeof text === 'object' && text ? text[this.language] || text.en || Object.values(text)[0] : text || ''; }

  /** Fetch the configuration; the last one serves where that fails. */
  async configure() {
    const answer = await fetch(`${HUB}/chat/${CHANNEL}/config`).catch(() => ({}));
    const config = answer.ok && await answer.json().catch(() => undefined);
    this.asked = Date.now();
    if (!config) return;
    remember({ config });
    this.dress();
  }

  /** Take over what is remembered: at the start with what was left unsent, and after a change here or in another tab. */
  adopt(running) {
    const { visitor, token, expires = 0, queue = [], proved = '' } = recall();
    const other = visitor !== this.visitor;
    // Show nothing of the visitor before, nor what is no longer proved
    if (other || proved !== this.proved) {
      this.stream?.abort();
      this.rows.forEach((row) => row.remove());
      [this.messages, this.rows].forEach((kept) => kept.clear());
      this.seeded = false;
      if (proved) this.settle();
    }
    if (other) {
      [this.acked, this.reported, this.arrived].forEach((kept) => kept.clear());
      // What nobody in particular wrote goes with whoever this becomes
      if (this.visitor) {
        this.queue = [];
        this.settle();
      }
    }
    Object.assign(this, { visitor, token, expires, proved });
    this.offers();
    const own = this.own();
    // Another tab sends its own
    if (!running) this.queue.push(...queue.filter((entry) => !own.has(entry.id)));
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
      this.newcomer = !before.token;
      if (told.problem) console.error(`HubChat identify: ${told.problem}`);
      // What one person had not sent yet must never be sent as another.
      this.begin(told, !before.visitor || before.visitor === told.visitor ? {} : { queue: [], typed: undefined, told: undefined });
    });
  }

  begin({ token, visitor, expires, welcome, proved, codes, identified }, more) {
    remember({ token, visitor, expires, welcome, identified, proved: proved.join(), offer: codes.length > 0 && !identified, ...more });
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
    remember({ token: undefined, visitor: undefined, expires: 0, queue: [], proved: undefined, typed: undefined, told: undefined,
      identified: undefined });
    this.close();
    this.adopt(true);
  }

  /** Go on here with what a mail's link names: its token is behind the #, which no server sees, and works once. */
  async resume() {
    const token = location.hash.slice(1);
    history.replaceState(history.state, '', location.pathname);
    if (!token) return;
    const answer = await fetch(`${HUB}/chat/${CHANNEL}/continue`, json({ token })).catch(() => ({}));
    const told = await answer.json?.().catch(() => ({})) || {};
    if (!answer.ok) { this.note.textContent = told.error || this.t('away'); return; }
    remember({ token: told.token, visitor: undefined, expires: 0, queue: [], proved: undefined });
    this.token = told.token;
    await this.session().catch(() => { this.note.textContent = this.t('away'); });
  }

  tell(name, detail, bubbles = false) { this.dispatchEvent(new CustomEvent(name, { detail, bubbles, composed: bubbles })); }
}
