// --- receiving ---

class Listening extends Codes {
  // Keep a stream while this page is seen and there is something to hear of. Hidden tabs let go and only look now and then: browsers
  // have few connections.
  async listen() {
    const wanted = () => this.token && navigator.onLine !== false && (this.messages.size || (!document.hidden && (this.open || !this.seeded)));
    if (!wanted()) { this.stream?.abort(); return; }
    if (this.stream && !this.stream.signal.aborted) return;
    const { signal } = this.stream = new AbortController();
    for (let failures = 0; !signal.aborted;) {
      let wait = 0;
      try {
        if (!document.hidden && (failures < 2 || failures % 8 === 0)) await this.follow(signal);
        else await this.look(signal);
        this.hush('away');
        failures = failures < 2 ? 0 : failures + 1;
      } catch (error) {
        failures += 1;
        wait = error.wait * 1000 || 0;
        if (failures > 2 && !signal.aborted) this.notify('away');
      }
      if (!signal.aborted) await sleep(later(Math.max(wait, document.hidden ? IDLE : failures > 1 ? POLL : 500)), signal);
      if (!signal.aborted && !wanted()) this.stream.abort();
    }
  }

  relisten() {
    this.stream?.abort();
    this.listen();
  }

  /** Read the list: all after what was seen last. */
  async look(signal) {
    for (let after = this.after(), more = true; more && !signal.aborted;) {
      const answer = await this.call(`/chat/${CHANNEL}/messages?after=${after}`);
      if (!answer.ok) throw failed(answer);
      const page = await answer.json();
      if (signal.aborted) return;
      this.take(page);
      // From nothing, the last page is all that is wanted
      more = after && page.more;
      after = page.messages.at(-1)?.id;
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
    // A proxy that buffers never lets the first frame through
    let watchdog = setTimeout(stop, POLL * 2);
    let lived = false;
    try {
      const answer = await this.call(`/chat/${CHANNEL}/stream?after=${this.after()}`, { signal: inner.signal });
      if (!answer.ok) throw failed(answer);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let buffer = '', part; !(part = await reader.read()).done;) {
        lived = true;
        this.hush('away');
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

  take({ messages = [], code, typing }) {
    if (typing) this.types(typing.name);
    if (code) this.expect(code);
    if (typing && !messages.length) return;
    const first = !this.seeded;
    const fresh = messages.filter((m) => m.from === 'agent' && !m.read && !this.messages.has(m.id));
    messages.forEach((m) => this.messages.set(m.id, m));
    const taken = new Set();
    // The hub trims a little otherwise than a browser
    const bare = (text) => text.replace(/[\s\0\ufeff]/g, '');
    // What the hub lists is no longer queued
    this.queue = this.queue.filter((entry) => {
      const match = [...this.messages.values()].find((m) => m.from === 'you' && m.id > entry.after && bare(m.text) === bare(entry.text)
        && m.attachments.length === (entry.files || []).length && !taken.has(m.id));
      if (!match) return true;
      taken.add(match.id);
      this.acked.add(entry.id);
      this.rows.get(entry.id)?.remove();
      return false;
    });
    this.keep();
    this.seeded = true;
    if (fresh.length) this.types();
    this.paint(first);
    this.read();
    if (!fresh.length) return;
    if (!this.watched() && !first) {
      this.heard.textContent = `${this.config.title || this.t('title')}: ${this.t('unread', fresh.length)}`;
      if (this.config.sound) this.beep();
    }
    if (!first) fresh.forEach(({ id, text, at, name }) => this.tell('message', { id, text, at, name }));
  }

  /** Show for a while that an agent types; without a name, no longer. */
  types(name) {
    clearTimeout(this.typer);
    this.typing.textContent = name === undefined ? '' : this.t('typing', name || this.t('support'));
    if (name !== undefined) this.typer = setTimeout(() => this.types(), 2 * TYPING);
  }

  beep() {
    const audio = this.audio ??= new AudioContext();
    const tone = new OscillatorNode(audio, { frequency: 660 });
    tone.connect(new GainNode(audio, { gain: 0.05 })).connect(audio.destination);
    tone.start();
    tone.stop(audio.currentTime + 0.15);
  }

  watched() { return this.open && !document.hidden; }

  /** Tell the hub which answers arrived, or were shown. */
  async read() {
    const type = this.watched() ? 'read' : 'delivered';
    const said = type === 'read' ? this.reported : this.arrived;
    const refs = this.unread().map((m) => m.ref).filter((ref) => ref && !said.has(ref)).slice(0, 100);
    if (!refs.length) return;
    refs.forEach((ref) => said.add(ref));
    this.paint();
    const told = await this.call(`/in/${CHANNEL}`, json({ type, refs })).catch(() => ({}));
    // With the next message, then
    if (!told.ok) refs.forEach((ref) => said.delete(ref));
  }

  unread() { return [...this.messages.values()].filter((m) => m.from === 'agent' && !m.read && !this.reported.has(m.ref)); }
}
