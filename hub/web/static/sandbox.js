/* The sandbox's pages. Everything shown comes from one snapshot, sent anew after each change; text reaches the page as text only. */

const $ = (id) => document.getElementById(id);

function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== ''));
  return node;
}

async function act(what, data = {}) {
  let answer;
  try {
    const response = await fetch(`/sandbox/act/${what}`, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(data) });
    answer = response.headers.get('Content-Type')?.startsWith('application/json') ? await response.json() : { problem: await response.text() };
  } catch {
    answer = { problem: 'The hub could not be reached. Is it running?' };
  }
  return answer;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: 'numeric', minute: '2-digit' });
const day = new Intl.DateTimeFormat(undefined, { weekday: 'short', day: 'numeric', month: 'short' });
const time = (seconds) => clock.format(seconds * 1000);
const until = (iso) => (iso && !Number.isNaN(Date.parse(iso)) ? day.format(new Date(iso)) : '');
const safeLink = (url) => { try { return ['http:', 'https:'].includes(new URL(url, location.href).protocol); } catch { return false; } };

/* ---------- the shop, inside its frame ---------- */

function shop() {
  const KEY = 'sandbox-visitor';
  const problem = (text = '') => { $('shop-problem').textContent = text; $('shop-problem').hidden = !text; };
  const chat = (...call) => {
    if (typeof window.HubChat === 'function') return window.HubChat(...call);
    window.HubChat = window.HubChat || { q: [] }; // picked up by the widget once it is there
    window.HubChat.q.push(call);
  };
  // What a shop's page does: fetch a token its own server signed, and hand it to the widget.
  const token = async (person) => {
    const answer = await act('sign-in', { person });
    problem(answer.problem);
    return answer.token || '';
  };
  const show = (name) => { $('signed-in').hidden = !name; $('sign-in').hidden = Boolean(name); $('visitor-name').textContent = name || ''; };
  const nameOf = (person) => [...$('visitor').options].find((option) => option.value === person)?.text;
  const signIn = async (person) => {
    sessionStorage.setItem(KEY, person);
    show(nameOf(person));
    await chat('identify', { token: () => token(person) });
  };
  $('sign-in').addEventListener('submit', (event) => { event.preventDefault(); signIn($('visitor').value); });
  $('sign-out').addEventListener('click', async () => {
    sessionStorage.removeItem(KEY);
    show('');
    await chat('logout');
    $('visitor').focus();
  });
  const back = sessionStorage.getItem(KEY);
  if (back && nameOf(back)) signIn(back);
}

/* ---------- the tour ---------- */

const SUGGESTIONS = {
  whatsapp: ['Hi, my parcel should have come on Tuesday. Where is it?', 'It is order 4711, the blue lamp.'],
  sms: ['Hello again, the lamp came but the shade is broken.', 'Can you send a new one?'],
};
const LETTER = { subject: 'Refund for order 4711', text: 'Hello,\n\nI sent the lamp back last week and have not seen the refund yet. Could you check?\n\nThank you' };

function tour() {
  let state;
  let app = 'whatsapp';
  let mailOpen = ''; // message id of the mail on show; empty: a new one is being written
  const seen = { texts: 0, mails: 0, posts: 0, hooks: 0 }; // highest order drawn, so that only what is new moves
  const person = () => state.people.find((one) => one.id === $('person').value) || state.people[0];

  async function perform(what, data, control) {
    if (control) control.disabled = true;
    const answer = await act(what, data);
    if (control) control.disabled = false;
    $('problem').textContent = answer.problem || '';
    $('problem').hidden = !answer.problem;
    return !answer.problem;
  }

  /* tabs at phone width */
  const tabs = [...document.querySelectorAll('.tabs [role=tab]')];
  const panelOf = (tab) => tab.getAttribute('aria-controls').replace('panel-', '');
  function show(name) {
    for (const tab of tabs) {
      const on = panelOf(tab) === name;
      tab.setAttribute('aria-selected', String(on));
      tab.tabIndex = on ? 0 : -1;
      if (on) tab.classList.remove('fresh');
      $(tab.getAttribute('aria-controls')).classList.toggle('shown', on);
    }
  }
  const shown = (name) => $(`panel-${name}`).offsetParent !== null;
  const mark = (name) => { if (!shown(name)) tabs.find((tab) => panelOf(tab) === name).classList.add('fresh'); };
  function arrows(list, pick) {
    list.forEach((tab, at) => {
      tab.addEventListener('click', () => pick(tab));
      tab.addEventListener('keydown', (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        const next = list[(at + step + list.length) % list.length];
        pick(next);
        next.focus();
      });
    });
  }
  arrows(tabs, (tab) => show(panelOf(tab)));
  show('phone');

  function call(name) {
    if (!name) return;
    show(name);
    const panel = $(`panel-${name}`);
    panel.scrollIntoView({ block: 'nearest', behavior: 'smooth' });
    panel.classList.add('called');
    setTimeout(() => panel.classList.remove('called'), 1400);
  }

  /* who */
  function drawPeople() {
    if ($('person').options.length) return;
    $('person').append(...state.people.map((one) => el('option', { value: one.id }, one.name)));
    $('audience').textContent = `${state.people.length} people in the audience`;
    $('mail-to').textContent = state.addresses.mail;
  }
  $('person').addEventListener('change', () => { mailOpen = ''; draw(true); });

  /* steps */
  const steps = [...document.querySelectorAll('#steps li')];
  function drawSteps() {
    const now = steps.find((step) => !state.steps[step.dataset.step]);
    for (const step of steps) {
      const done = state.steps[step.dataset.step];
      step.classList.toggle('done', done);
      const became = step === now && !step.classList.contains('now');
      step.classList.toggle('now', step === now);
      step.querySelector('.step-state').textContent = done ? 'Done' : step === now ? 'Next' : '';
      const strip = step.parentElement;
      if (became && strip.scrollWidth > strip.clientWidth) strip.scrollLeft = step.offsetLeft - strip.offsetLeft - 24;
    }
  }
  const doIt = {
    wrote: () => { pickApp('whatsapp'); fill(SUGGESTIONS.whatsapp[0]); $('phone-form').requestSubmit(); },
    inbox: () => $('open-inbox').click(),
    answered: () => $('open-inbox').focus(),
    resolved: () => call('slack'),
    skipped: () => $('campaign-send').focus(),
    sent: () => $('campaign-send').focus(),
    sms: () => { pickApp('sms'); fill(SUGGESTIONS.sms[0]); $('phone-form').requestSubmit(); },
  };
  for (const step of steps) {
    step.querySelector('button').addEventListener('click', () => { call(step.dataset.panel); doIt[step.dataset.step](); });
  }
  $('open-inbox').addEventListener('click', () => { act('inbox'); });

  /* phone */
  const apps = [$('app-whatsapp'), $('app-sms')];
  function pickApp(name) {
    app = name;
    for (const tab of apps) {
      const on = tab.id === `app-${name}`;
      tab.setAttribute('aria-selected', String(on));
      tab.tabIndex = on ? 0 : -1;
      if (on) tab.classList.remove('fresh');
    }
    $('thread').setAttribute('aria-labelledby', `app-${name}`);
    if (state) drawPhone(true);
  }
  arrows(apps, (tab) => pickApp(tab.id.replace('app-', '')));
  function fill(text) { $('phone-text').value = text; $('phone-text').focus(); }

  const TICKS = { sending: '◷', sent: '✓✓' };
  function bubble(text) {
    const told = text.mine ? (text.status === 'failed' ? el('span', { class: 'failed' }, 'not delivered') : TICKS[text.status] || '') : '';
    return el('li', { class: [text.mine && 'mine', text.promotion && 'promotion', text.order > seen.texts && 'fresh'].filter(Boolean).join(' ') || null },
      text.pictures.map((src) => (src.startsWith('/') && !src.startsWith('//') ? el('img', { src, alt: 'Picture', loading: 'lazy' }) : el('span', {}, src))),
      text.text, el('span', { class: 'meta' }, time(text.at), told ? ' ' : '', told));
  }
  function drawPhone(jump) {
    const mine = state.texts.filter((text) => text.phone === person().phone);
    const here = mine.filter((text) => text.channel === app);
    const thread = $('thread');
    const atEnd = jump || thread.scrollHeight - thread.scrollTop - thread.clientHeight < 60;
    thread.className = `thread ${app}`;
    thread.replaceChildren(...(here.length ? here.map(bubble)
      : [el('li', { class: 'empty' }, `${person().name} has not written by ${app === 'sms' ? 'SMS' : 'WhatsApp'} yet.`)]));
    if (atEnd) thread.scrollTop = thread.scrollHeight;
    $('phone-to').textContent = state.addresses[app];
    $('phone-picture').hidden = app !== 'whatsapp';
    const said = here.filter((text) => text.mine).length;
    $('phone-chips').replaceChildren(...SUGGESTIONS[app].slice(said, said + 1).map((text) => el('button', { type: 'button', onclick: () => fill(text) }, text)));
    const news = mine.filter((text) => !text.mine && text.order > seen.texts);
    if (news.length && !jump) mark('phone');
    for (const text of news) if (text.channel !== app && !jump) $(`app-${text.channel}`).classList.add('fresh');
  }
  $('phone-form').addEventListener('submit', async (event) => {
    event.preventDefault();
    const text = $('phone-text').value.trim();
    if (!text) return;
    $('phone-text').value = '';
    if (!(await perform(app, { person: $('person').value, text })) && !$('phone-text').value) $('phone-text').value = text;
  });
  $('phone-picture').addEventListener('click', async () => {
    const text = $('phone-text').value.trim();
    if (await perform('whatsapp', { person: $('person').value, text, picture: true }, $('phone-picture'))) $('phone-text').value = '';
  });

  /* mail */
  function openMail(id) {
    mailOpen = id;
    $('mail-text').value = '';
    drawMail();
    (id ? $('mail-text') : $('mail-subject')).focus();
  }
  function drawMail() {
    const box = state.mails.filter((mail) => mail.box === person().email);
    const open = box.find((mail) => mail.message_id === mailOpen);
    $('mail-address').textContent = person().email;
    $('mail-list').replaceChildren(...(box.length ? [...box].reverse().map((mail) =>
      el('li', {}, el('button', { type: 'button', 'aria-current': mail === open ? 'true' : null, onclick: () => openMail(mail.message_id) },
        el('b', {}, mail.mine ? `To ${mail.to}` : mail.from), el('span', {}, mail.subject),
        el('span', {}, mail.status === 'failed' ? 'not delivered' : time(mail.at)))))
      : [el('li', { class: 'empty' }, 'No mails yet.')]));
    $('mail-read').hidden = !open;
    const answers = Boolean(open && !open.mine);
    $('mail-form').hidden = Boolean(open && open.mine);
    $('mail-subject').hidden = answers;
    $('mail-fill').hidden = answers;
    $('mail-to').textContent = answers ? open.from : state.addresses.mail;
    $('mail-text').placeholder = answers ? 'Write an answer' : 'Write a mail';
    $('mail-send').textContent = answers ? 'Send answer' : 'Send';
    if (open) {
      $('mail-read').replaceChildren(el('h3', {}, open.subject), el('p', { class: 'from' }, `${open.mine ? 'You' : open.from} to ${open.to} · ${time(open.at)}`),
        el('div', { class: 'text' }, open.text), open.files?.length ? el('p', { class: 'files' }, `With ${open.files.join(', ')}`) : '');
    }
    if (box.some((mail) => !mail.mine && mail.order > seen.mails)) mark('mail');
  }
  $('mail-new').addEventListener('click', () => openMail(''));
  $('mail-fill').addEventListener('click', () => { $('mail-subject').value = LETTER.subject; $('mail-text').value = `${LETTER.text}\n${person().name.split(' ')[0]}`; $('mail-text').focus(); });
  $('mail-form').addEventListener('submit', async (event) => {
    event.preventDefault();
    const answered = state.mails.find((mail) => mail.message_id === mailOpen && mail.box === person().email);
    const subject = answered ? (/^re:/i.test(answered.subject) ? answered.subject : `Re: ${answered.subject}`) : $('mail-subject').value;
    const data = { person: $('person').value, subject, text: $('mail-text').value, in_reply_to: answered?.message_id || '' };
    if (await perform('mail', data, $('mail-send'))) {
      $('mail-subject').value = '';
      $('mail-text').value = '';
      mailOpen = state.mails.filter((mail) => mail.mine && mail.box === person().email).at(-1)?.message_id || '';
      drawMail();
    }
  });

  /* Slack */
  // https://docs.slack.dev/messaging/formatting-message-text: as much of mrkdwn as posts use, built from text nodes.
  const plain = (text) => text.replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&amp;', '&');
  function marked(text) {
    return text.split(/(\*[^*\n]+\*|<[^<>\n]+>)/).map((part) => {
      if (/^\*[^*]+\*$/.test(part)) return el('b', {}, plain(part.slice(1, -1)));
      const link = /^<([^|>]+)(?:\|([^>]*))?>$/.exec(part);
      if (link && safeLink(link[1]) && /^https?:/.test(link[1])) return el('a', { href: plain(link[1]), target: '_blank', rel: 'noopener' }, plain(link[2] || link[1]));
      return plain(part);
    });
  }
  const words = (text) => (!text ? '' : typeof text === 'string' ? marked(text) : text.type === 'mrkdwn' ? marked(text.text) : plain(text.text || ''));
  function button(post, item) {
    const props = { class: `button small ${item.style === 'primary' ? 'primary' : ''} ${item.style === 'danger' ? 'danger' : ''}` };
    const press = (event) => perform('slack', { ts: post.ts, action: item.action_id, user: $('slack-user').value }, event.currentTarget.tagName === 'BUTTON' ? event.currentTarget : null);
    if (item.url && safeLink(item.url)) return el('a', { ...props, href: item.url, target: '_blank', rel: 'noopener', onclick: press }, words(item.text));
    return el('button', { ...props, type: 'button', 'data-action': item.action_id, onclick: press }, words(item.text));
  }
  function block(post, item) {
    if (item.type === 'divider') return el('hr');
    if (item.type === 'header') return el('div', { class: 'block header' }, words(item.text));
    if (item.type === 'context') return el('div', { class: 'block context' }, item.elements.map((one) => el('span', {}, words(one))));
    if (item.type === 'actions') return el('div', { class: 'block actions' }, item.elements.filter((one) => one.type === 'button').map((one) => button(post, one)));
    if (item.type !== 'section') return '';
    return [item.text ? el('div', { class: 'block' }, words(item.text)) : '',
      item.fields ? el('div', { class: 'block fields' }, item.fields.map((one) => el('span', {}, words(one)))) : '',
      item.accessory?.type === 'button' ? el('div', { class: 'block actions' }, button(post, item.accessory)) : ''];
  }
  const hubFace = () => el('span', { class: 'bot', 'aria-hidden': 'true' }, 'H');
  const by = (item, note) => el('div', { class: 'by' }, el('b', {}, 'Support hub'), ' ', el('span', { class: 'app' }, 'APP'), ` ${time(item.at)}`, note);
  function drawSlack() {
    const { slack } = state;
    $('slack-channel').textContent = `# ${slack.channel}`;
    if (!$('slack-user').options.length) $('slack-user').append(...slack.users.map((user) => el('option', { value: user.id }, user.name)));
    const list = $('slack-posts');
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 80;
    const held = document.activeElement?.closest?.('[data-ts]') ? [document.activeElement.closest('[data-ts]').dataset.ts, document.activeElement.dataset.action] : null;
    const items = [...slack.posts, ...slack.notices.filter((notice) => notice.user === $('slack-user').value)].sort((a, b) => a.order - b.order);
    list.replaceChildren(...(items.length ? items.map((item) => (item.ts
      ? el('li', { 'data-ts': item.ts, class: item.order > seen.posts ? 'fresh' : null }, hubFace(),
        el('div', {}, by(item, item.updates ? ' (edited)' : ''), item.blocks.length ? item.blocks.map((one) => block(item, one)).flat() : el('div', { class: 'block' }, marked(item.text))))
      : el('li', { class: item.order > seen.posts ? 'only-you fresh' : 'only-you' }, hubFace(), el('div', {}, by(item, ' · only visible to you'), el('div', { class: 'block' }, marked(item.text))))))
      : [el('li', { class: 'empty' }, 'The team hears of a ticket here as soon as somebody writes.')]));
    if (atEnd) list.scrollTop = list.scrollHeight;
    if (held) list.querySelector(`[data-ts="${CSS.escape(held[0])}"] [data-action="${CSS.escape(held[1] || '')}"]`)?.focus();
    if (items.some((item) => item.order > seen.posts)) mark('slack');
  }
  $('slack-user').addEventListener('change', drawSlack);

  /* marketing */
  const KINDS = { 'hold.placed': ['hold', 'Placed'], 'hold.renewed': ['hold', 'Renewed'], 'hold.released': ['good', 'Released'],
    'customer.merged': ['', 'Merged'], 'customer.unmerged': ['', 'Taken apart'], 'customer.split': ['', 'Split off'] };
  function drawMarketing() {
    const { held, hooks, campaigns } = state.marketing;
    const last = campaigns.at(-1);
    $('campaign-lines').replaceChildren(...(last ? last.lines.map((line) =>
      el('li', { 'data-outcome': line.sent ? 'sent' : 'skipped' }, el('span', { class: `badge ${line.sent ? 'good' : 'hold'}` }, line.sent ? 'Sent' : 'Skipped'), el('b', {}, line.name),
        el('span', {}, line.why)))
      : []));
    $('held').replaceChildren(...(held.length ? held.map((hook) =>
      el('li', {}, el('b', {}, hook.who), ` ${hook.reasons.join(', ')}${hook.until ? `, ${until(hook.until)} at the latest` : ''}`))
      : [el('li', { class: 'nobody' }, 'Nobody, as far as this tool was told since it started.')]));
    $('hooks').replaceChildren(...(hooks.length ? [...hooks].reverse().map((hook) => {
      const [tone, word] = KINDS[hook.type] || ['', hook.type];
      return el('li', { 'data-type': hook.type, class: hook.order > seen.hooks ? 'fresh' : null },
        el('div', { class: 'line' }, el('span', { class: `badge ${tone}` }, word), el('b', {}, hook.who),
          hook.problem ? el('span', { class: 'badge bad' }, `Refused: ${hook.problem}`) : el('span', { class: 'badge good' }, 'Signature verified'), el('time', {}, time(hook.at))),
        el('div', { class: 'facts' }, [hook.version && `version ${hook.version}`, hook.reasons.join(', '), hook.until && `until ${until(hook.until)}`].filter(Boolean).join(' · ')),
        hook.identifiers.length ? el('div', { class: 'ids' }, hook.identifiers.map((one) => el('code', { title: `${one.kind}, ${one.because}` }, `${one.value} (${one.because})`))) : '');
    }) : [el('li', { class: 'nothing' }, 'Nothing yet.')]));
    if (hooks.some((hook) => hook.order > seen.hooks)) mark('marketing');
    drawKlaviyo(state.marketing.klaviyo);
  }
  const clocked = (seconds) => clock.format(new Date(seconds * 1000));
  function drawKlaviyo(klaviyo) {
    $('klaviyo').hidden = !klaviyo.connected;
    $('profiles').replaceChildren(...klaviyo.profiles.map((one) => {
      const [tone, word] = one.held === true ? ['hold', 'Held'] : one.held === false ? ['good', 'Free'] : ['', 'Never held'];
      const facts = [one.held ? `support_hold until ${until(one.until)}` : '', one.status ? `support_status ${one.status}` : '',
        one.read_back ? `read back ${clocked(one.read_back)}` : one.held == null ? '' : 'not read back yet'];
      return el('li', { 'data-profile': one.name, 'data-held': String(one.held), 'data-confirmed': one.read_back ? 'yes' : 'no' },
        el('span', { class: `badge ${tone}` }, word), el('b', {}, one.name), el('span', {}, facts.filter(Boolean).join(' · ')));
    }));
    $('planned').replaceChildren(...klaviyo.planned.map((one) => el('li', {}, `${one.name}: ${one.recipients === null
      ? 'to whoever is free when it is sent' : `recipients fixed at ${clocked(one.fixed_at)} (${one.recipients.length})`}`)),
    ...klaviyo.drafts.map((name) => el('li', {}, `${name}: put back to draft`)));
    $('planned-sent').replaceChildren(...klaviyo.sent.map((one) => el('div', { class: 'ran' }, el('b', {}, `${one.name}, ${clocked(one.at)}`),
      el('ul', { class: 'lines' }, one.lines.map((line) => el('li', { 'data-outcome': line.leak ? 'leak' : line.sent ? 'sent' : 'left-out' },
        el('span', { class: `badge ${line.leak ? 'bad' : line.sent ? 'good' : 'hold'}` }, line.leak ? 'Leak' : line.sent ? 'Sent' : 'Left out'),
        el('b', {}, line.name), el('span', {}, line.why)))))));
  }
  $('planned-send').addEventListener('click', () => perform('planned', {}, $('planned-send')));
  $('campaign-send').addEventListener('click', () => perform('campaign', {}, $('campaign-send')));

  /* drawing it all */
  const highest = (list) => list.reduce((most, item) => Math.max(most, item.order), 0);
  function remember() {
    seen.texts = highest(state.texts);
    seen.mails = highest(state.mails);
    seen.posts = highest([...state.slack.posts, ...state.slack.notices]);
    seen.hooks = highest(state.marketing.hooks);
  }
  function draw(jump) {
    drawPeople();
    $('person-facts').textContent = `${person().phone} · ${person().email}`;
    drawSteps();
    drawPhone(jump);
    drawMail();
    drawSlack();
    drawMarketing();
    remember();
    document.body.dataset.version = state.version;
  }
  const tick = () => { $('phone-clock').textContent = clock.format(new Date()); };
  tick();
  setInterval(tick, 20000);
  const stream = new EventSource('/sandbox/stream');
  stream.addEventListener('state', (event) => { const first = !state; state = JSON.parse(event.data); if (first) remember(); draw(first); });
}

({ tour, shop })[document.body.dataset.page]();
