// --- one-time codes ---

class Codes extends Session {
  /** Offer a code to whoever is nobody yet; agents and the page may ask anybody. */
  offers() { this.offer.hidden = Boolean(this.proved || !this.confirm.hidden || !recall().offer); }

  /** Ask for the address a code is to go to. */
  ask() {
    this.code = undefined;
    this.fill(this.t('address'), this.t('send'), { type: 'text', inputMode: 'email', autocomplete: 'email', maxLength: 254,
      autocapitalize: 'none', spellcheck: false }, link(this.t('cancel'), () => this.settle(true)));
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
      again.textContent = wait > 0 ? `${this.t('again')} (${wait} s)` : this.t('again');
      if (wait-- > 0) setTimeout(count, 1000);
    };
    count();
    const label = this.t('typecode', code.sent_to);
    this.fill(label, this.t('confirm'), { type: 'text', inputMode: 'numeric', autocomplete: 'one-time-code', maxLength: 12,
      className: 'digits', dir: 'ltr' }, again, link(this.t('cancel'), () => this.settle(true)));
    if (asked) this.field.focus();
    else this.heard.textContent = label;
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
    // What was said, agents may know
    this.order({ kind, value: typed }).then((done) => done && this.knows({ [kind]: typed }));
  }

  /** Keep what the visitor said of themselves for the messages to come. */
  knows(typed) { remember({ typed: { ...recall().typed, ...typed } }); }

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
    this.note.textContent = this.t('thanks', to);
    this.tell('verified', { sent_to: to }, true);
  }

  /** One request about codes; says by itself what went wrong. */
  async post(path, body) {
    if (this.busy) return undefined;
    this.busy = this.go.disabled = true;
    const answer = await this.call(`/chat/${CHANNEL}/code${path}`, json(body)).catch(() => ({}));
    const told = await answer.json?.().catch(() => ({})) || {};
    this.busy = this.go.disabled = false;
    if (answer.ok) return told;
    const left = told.tries_left ? ` ${this.t('tries', told.tries_left)}` : '';
    this.wrong.textContent = `${told.error || this.t('away')}${left}`;
    this.field.ariaInvalid = 'true';
    this.field.select();
    return undefined;
  }
}
