// --- sending ---

/** Whether a file fits what an `accept` attribute says. */
const takes = (accept, { name, type }) => !accept || accept.toLowerCase().split(',').map((rule) => rule.trim()).some((rule) => (
  rule.startsWith('.') ? name.toLowerCase().endsWith(rule) : rule.endsWith('/*') ? rule === '*/*' || type.startsWith(rule.slice(0, -1)) : type === rule));

class Sending extends Listening {
  files = [];
  // Ends the wait before the next try to send
  nap = new AbortController();

  say() {
    const text = this.text.value.trim();
    if (!text && !this.files.length) return;
    const fields = this.answers();
    if (!fields) return;
    const files = this.files.length ? this.files : undefined;
    // Neither query nor fragment: they may hold what is nobody's business.
    const page = { url: location.origin + location.pathname, title: document.title.slice(0, 200) };
    this.queue.push({ id: uuid(), text, files, fields, page, at: Date.now(), after: Math.max(0, ...this.messages.keys()) });
    this.text.value = '';
    this.drop();
    this.fit();
    this.keep();
    this.paint();
    this.type();
    this.log.scrollTop = this.log.scrollHeight;
    this.flush();
  }

  /** Keep for after a reload what is not acknowledged. Files are too big for that: they live as long as the page. */
  keep() {
    const own = this.own();
    // Of other tabs
    const others = (recall().queue || []).filter((entry) => !own.has(entry.id));
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
        // It was another visitor's
        if (!this.queue.includes(entry)) continue;
        const { id, text, files, fields, page, at } = entry;
        const answer = await this.call(`/in/${CHANNEL}`, json({ id, text, files, fields, page, at, language: this.language, ...recall().typed }));
        if (answer.ok) {
          this.acked.add(id);
          this.hush('busy');
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
        if (error.status === 429) this.notify('busy', Math.ceil(wait));
        // The hub answers, and asks for patience
        tries += error.wait ? 0.25 : 1;
      }
      if (tries > 3 && navigator.onLine !== false) entry.problem = 'away';
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

  /** Tell the agents that something is being written, or no longer: at most a word every three seconds. */
  type() {
    const busy = Boolean(this.text.value.trim());
    if (!this.token || !this.messages.size || this.mute || busy === (Date.now() - (this.typed || 0) < TYPING)) return;
    if (!busy && !this.typed) return;
    this.typed = busy ? Date.now() : 0;
    this.call(`/chat/${CHANNEL}/typing`, json({ typing: busy })).then((answer) => { this.mute = answer.status === 404; }, () => {});
  }

  // --- files ---

  /** Take files along with the next message, from wherever they come. */
  async add(list) {
    const { max_file_bytes: most = 5e6, file_types: accept } = this.config;
    const files = [...list].filter((file) => file.size);
    const odd = files.find((file) => !takes(accept, file));
    const all = [...this.files, ...files];
    if (odd) this.notify('kind', odd.name);
    else if (all.length > 10) this.notify('many');
    else if (all.reduce((sum, file) => sum + file.size, 0) > most) this.notify('big', this.size(most));
    else {
      this.hush('kind', 'many', 'big');
      const read = await Promise.all(files.map((file) => new Promise((done, fail) => {
        const reader = new FileReader();
        reader.onload = () => done({ name: file.name, type: file.type, size: file.size,
          data: reader.result.slice(reader.result.indexOf(',') + 1) });
        reader.onerror = fail;
        reader.readAsDataURL(file);
      }))).catch(() => { this.notify('lost'); return []; });
      this.files.push(...read);
      this.chip();
    }
    this.text.focus();
  }

  chip() {
    this.chips.replaceChildren(...this.files.map((file) => {
      const told = `${file.name} (${this.size(file.size)})`;
      return el('button', { className: 'file', type: 'button', textContent: told, ariaLabel: this.t('remove', told), onclick: () => {
        this.files = this.files.filter((one) => one !== file);
        this.chip();
        this.text.focus();
      } });
    }));
  }

  drop() {
    this.files = [];
    this.chip();
  }

  dragged(event) {
    if (![...event.dataTransfer?.types || []].includes('Files')) return;
    event.preventDefault();
    // Between two children of the panel one is entered before the other is left.
    this.over = event.type === 'drop' ? 0 : (this.over || 0) + ({ dragenter: 1, dragleave: -1 }[event.type] || 0);
    this.dropzone.hidden = this.over < 1;
    if (event.type === 'drop') this.add(event.dataTransfer.files);
  }

  pasted(event) {
    const { files, types } = event.clipboardData;
    // A copied table comes with its picture: the text is meant
    if (!files.length || types.includes('text/plain')) return;
    event.preventDefault();
    this.add(files);
  }

  async download(file) {
    const answer = await this.call(file.url).catch(() => ({}));
    if (!answer.ok) { this.notify('lost'); return; }
    const href = URL.createObjectURL(await answer.blob());
    // Saved, never opened: it would run as part of this site
    el('a', { href, download: file.name }).click();
    setTimeout(() => URL.revokeObjectURL(href), 60000);
  }

  size(bytes) {
    const [value, unit] = bytes < 1e6 ? [Math.ceil(bytes / 1000), 'kilobyte'] : [bytes / 1e6, 'megabyte'];
    return value.toLocaleString(this.locale, { style: 'unit', unit, maximumFractionDigits: 1 });
  }

  // --- what is asked before the first message, and while nobody is there ---

  closed() {
    const { hours } = this.config;
    return Boolean(hours && !hours.open && !(Date.parse(hours.opens_at) < Date.now()));
  }

  /** The fields to be filled in before a message goes. */
  wants() {
    const { typed = {}, told, identified, proved, token } = recall();
    const started = told || identified || this.messages.size || (token && !this.seeded && !this.newcomer);
    const fields = (started ? [] : this.config.prechat || []).filter(({ name }) => !typed[name]);
    if (!this.closed() || identified || proved || typed.email) return fields;
    return [...fields.filter(({ name }) => name !== 'email'), { name: 'email', type: 'email', required: true }];
  }

  /** Show these fields; what was typed into them stays. */
  asks() {
    const wanted = this.wants();
    const shown = JSON.stringify([wanted, this.language]);
    if (shown === this.shown) return;
    this.shown = shown;
    const before = Object.fromEntries([...this.fields.querySelectorAll('[name]')].map((input) => [input.name, input.value]));
    this.fields.hidden = !wanted.length;
    this.fields.replaceChildren(...wanted.map(({ name, label, type = 'text', options = [], required }) => {
      const props = { name, required: Boolean(required), ariaInvalid: 'false', 'aria-describedby': `wrong-${name}`,
        autocomplete: { name: 'name', email: 'email', phone: 'tel' }[name] || 'off' };
      const input = type === 'select'
        ? el('select', props, el('option', { value: '' }), ...options.map((option) => el('option', { value: this.told(option.value ?? option),
          textContent: this.told(option.label ?? option) })))
        : el('input', { ...props, type, maxLength: 200 });
      input.value = before[name] || '';
      const said = this.told(label) || (KEYS.includes(name) ? this.t(name) : name);
      return el('label', {}, required ? said : `${said} (${this.t('optional')})`, input, el('span', { className: 'wrong', id: `wrong-${name}` }));
    }));
  }

  /** What was filled in, or undefined where something is missing: then it is pointed at. */
  answers() {
    this.asks();
    const inputs = [...this.fields.querySelectorAll('[name]')];
    let first;
    for (const input of inputs) {
      const problem = input.required && !input.value.trim() ? 'need' : input.checkValidity() ? '' : 'wrong';
      input.ariaInvalid = String(Boolean(problem));
      input.nextSibling.textContent = problem && this.t(problem);
      if (problem) first ??= input;
    }
    if (first) { this.show(); first.focus(); this.heard.textContent = first.nextSibling.textContent; return undefined; }
    const said = inputs.map((input) => [input.name, input.value.trim()]).filter(([, value]) => value);
    if (inputs.length) {
      remember({ told: true });
      this.knows(Object.fromEntries(said.filter(([name]) => ['name', 'email', 'phone'].includes(name))));
    }
    return Object.fromEntries(said);
  }
}
