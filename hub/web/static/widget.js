(() => {
'use strict';
/* Chat widget of the support hub: no dependencies, served as one script made of these files in order. How to embed it: docs/widget.md. */
const script = document.currentScript;
if (!script || customElements.get('hub-chat')) return;

const KEYS = ('title|close|messages|message|write|attach|photo|send|sending|sent|seen|waiting|you|support|typing|unread|offline|away|busy|retry|refused|remove|big|kind|many'
+ '|lost|closed|opens|leave|name|email|phone|need|wrong|optional|offer|address|cancel|again|typecode|confirm|thanks|tries').split('|');
const WORDS = {
en: 'Chat with us|Close chat|Messages|Your message|Write a message…|Attach a file|Take a photo|Send|Sending…|Sent|Read|Waiting for a connection|You|Support|{} is typing…|{} unread|You are offline. What you write is kept and sent later.|We cannot be reached at the moment. What you write is kept and sent later.|That was a lot at once. The rest is sent in {} s.|Not sent – tap to retry|Not sent (refused) – tap to retry|Remove {}|The files of a message may have {} together.|{}: we do not take this kind of file.|A message takes ten files.|This file cannot be fetched.|We are away just now.|We are back {}.|Leave your e-mail address, and we answer there.|Name|E-mail|Phone|Please fill this in.|Please check this.|optional|Wrote to us before? Confirm it’s you|Your e-mail address or phone number. We send a code there.|Cancel|Send again|We sent a code to {}. Type it in here to confirm it’s you.|Confirm|Thank you. {} is confirmed.|{} tries left.',
de: 'Chat mit uns|Chat schließen|Nachrichten|Ihre Nachricht|Nachricht schreiben …|Datei anhängen|Foto aufnehmen|Senden|Wird gesendet …|Gesendet|Gelesen|Wartet auf Verbindung|Sie|Support|{} schreibt …|{} ungelesen|Sie sind offline. Was Sie schreiben, wird aufbewahrt und später gesendet.|Wir sind im Moment nicht erreichbar. Was Sie schreiben, wird aufbewahrt und später gesendet.|Das war viel auf einmal. Der Rest wird in {} s gesendet.|Nicht gesendet – zum Wiederholen tippen|Nicht gesendet (abgelehnt) – zum Wiederholen tippen|{} entfernen|Die Dateien einer Nachricht dürfen zusammen {} haben.|{}: Diese Art Datei nehmen wir nicht an.|Eine Nachricht fasst zehn Dateien.|Diese Datei kann nicht geladen werden.|Wir sind gerade nicht da.|Wir sind {} wieder da.|Hinterlassen Sie Ihre E-Mail-Adresse, dann antworten wir dort.|Name|E-Mail|Telefon|Bitte ausfüllen.|Bitte prüfen.|freiwillig|Schon einmal geschrieben? Bestätigen Sie, wer Sie sind|Ihre E-Mail-Adresse oder Telefonnummer. Dorthin senden wir einen Code.|Abbrechen|Noch einmal senden|Wir haben einen Code an {} gesendet. Geben Sie ihn hier ein, um zu bestätigen, wer Sie sind.|Bestätigen|Danke. {} ist bestätigt.|Noch {} Versuche.',
fr: 'Écrivez-nous|Fermer le chat|Messages|Votre message|Écrire un message…|Joindre un fichier|Prendre une photo|Envoyer|Envoi…|Envoyé|Lu|En attente de connexion|Vous|Assistance|{} écrit…|{} non lus|Vous êtes hors ligne. Ce que vous écrivez est gardé et envoyé plus tard.|Nous sommes injoignables pour le moment. Ce que vous écrivez est gardé et envoyé plus tard.|C’était beaucoup à la fois. La suite part dans {} s.|Non envoyé – touchez pour réessayer|Non envoyé (refusé) – touchez pour réessayer|Retirer {}|Les fichiers d’un message ne peuvent dépasser {} au total.|{} : ce type de fichier n’est pas accepté.|Dix fichiers au plus par message.|Ce fichier est introuvable.|Nous sommes absents pour le moment.|Nous revenons {}.|Laissez votre adresse e-mail, nous y répondrons.|Nom|E-mail|Téléphone|À remplir, s’il vous plaît.|À vérifier, s’il vous plaît.|facultatif|Vous nous avez déjà écrit ? Confirmez votre identité|Votre adresse e-mail ou numéro de téléphone. Nous y envoyons un code.|Annuler|Renvoyer|Nous avons envoyé un code à {}. Saisissez-le ici pour confirmer votre identité.|Confirmer|Merci. {} est confirmé.|{} essais restants.',
es: 'Chatea con nosotros|Cerrar el chat|Mensajes|Tu mensaje|Escribe un mensaje…|Adjuntar un archivo|Hacer una foto|Enviar|Enviando…|Enviado|Leído|Esperando conexión|Tú|Soporte|{} está escribiendo…|{} sin leer|No tienes conexión. Lo que escribas se guarda y se envía después.|Ahora no se nos puede contactar. Lo que escribas se guarda y se envía después.|Demasiado a la vez. El resto se envía en {} s.|No enviado – toca para reintentar|No enviado (rechazado) – toca para reintentar|Quitar {}|Los archivos de un mensaje pueden sumar {}.|{}: no aceptamos este tipo de archivo.|Diez archivos por mensaje como máximo.|No se puede obtener este archivo.|Ahora no estamos.|Volvemos {}.|Deja tu correo electrónico y te respondemos ahí.|Nombre|Correo electrónico|Teléfono|Rellena este campo.|Comprueba este campo.|opcional|¿Ya nos escribiste? Confirma quién eres|Tu correo electrónico o teléfono. Enviamos un código ahí.|Cancelar|Enviar de nuevo|Enviamos un código a {}. Escríbelo aquí para confirmar quién eres.|Confirmar|Gracias. {} está confirmado.|Quedan {} intentos.',
pt: 'Fale conosco|Fechar o chat|Mensagens|Sua mensagem|Escreva uma mensagem…|Anexar um arquivo|Tirar uma foto|Enviar|Enviando…|Enviada|Lida|Aguardando conexão|Você|Suporte|{} está digitando…|{} não lidas|Você está sem conexão. O que escrever fica guardado e é enviado depois.|Não estamos acessíveis agora. O que escrever fica guardado e é enviado depois.|Foi muito de uma vez. O resto é enviado em {} s.|Não enviada – toque para tentar de novo|Não enviada (recusada) – toque para tentar de novo|Remover {}|Os arquivos de uma mensagem podem somar {}.|{}: não aceitamos este tipo de arquivo.|No máximo dez arquivos por mensagem.|Não foi possível obter este arquivo.|Não estamos no momento.|Voltamos {}.|Deixe seu e-mail e respondemos por lá.|Nome|E-mail|Telefone|Preencha este campo.|Verifique este campo.|opcional|Já nos escreveu? Confirme quem você é|Seu e-mail ou telefone. Enviamos um código para lá.|Cancelar|Enviar de novo|Enviamos um código para {}. Digite-o aqui para confirmar quem você é.|Confirmar|Obrigado. {} está confirmado.|Restam {} tentativas.',
it: 'Scrivici|Chiudi la chat|Messaggi|Il tuo messaggio|Scrivi un messaggio…|Allega un file|Scatta una foto|Invia|Invio…|Inviato|Letto|In attesa di connessione|Tu|Assistenza|{} sta scrivendo…|{} non letti|Sei offline. Quello che scrivi viene conservato e inviato più tardi.|Al momento non siamo raggiungibili. Quello che scrivi viene conservato e inviato più tardi.|Troppo in una volta. Il resto parte tra {} s.|Non inviato – tocca per riprovare|Non inviato (rifiutato) – tocca per riprovare|Rimuovi {}|I file di un messaggio possono avere in tutto {}.|{}: non accettiamo questo tipo di file.|Al massimo dieci file per messaggio.|Impossibile ottenere questo file.|Ora non ci siamo.|Torniamo {}.|Lascia la tua e-mail e ti rispondiamo lì.|Nome|E-mail|Telefono|Compila questo campo.|Controlla questo campo.|facoltativo|Ci hai già scritto? Conferma chi sei|La tua e-mail o il tuo telefono. Inviamo lì un codice.|Annulla|Invia di nuovo|Abbiamo inviato un codice a {}. Scrivilo qui per confermare chi sei.|Conferma|Grazie. {} è confermato.|Ancora {} tentativi.',
nl: 'Chat met ons|Chat sluiten|Berichten|Uw bericht|Schrijf een bericht…|Bestand bijvoegen|Foto maken|Versturen|Wordt verstuurd…|Verstuurd|Gelezen|Wacht op verbinding|U|Support|{} typt…|{} ongelezen|U bent offline. Wat u schrijft, wordt bewaard en later verstuurd.|We zijn nu niet bereikbaar. Wat u schrijft, wordt bewaard en later verstuurd.|Dat was veel tegelijk. De rest wordt over {} s verstuurd.|Niet verstuurd – tik om opnieuw te proberen|Niet verstuurd (geweigerd) – tik om opnieuw te proberen|{} verwijderen|De bestanden van een bericht mogen samen {} zijn.|{}: dit soort bestand nemen we niet aan.|Een bericht kan tien bestanden bevatten.|Dit bestand kan niet worden opgehaald.|We zijn er nu even niet.|We zijn er weer {}.|Laat uw e-mailadres achter, dan antwoorden we daar.|Naam|E-mail|Telefoon|Vul dit in.|Controleer dit.|optioneel|Al eerder geschreven? Bevestig wie u bent|Uw e-mailadres of telefoonnummer. Daarheen sturen we een code.|Annuleren|Opnieuw sturen|We hebben een code gestuurd naar {}. Typ die hier om te bevestigen wie u bent.|Bevestigen|Dank u. {} is bevestigd.|Nog {} pogingen.',
tr: 'Bize yazın|Sohbeti kapat|Mesajlar|Mesajınız|Bir mesaj yazın…|Dosya ekle|Fotoğraf çek|Gönder|Gönderiliyor…|Gönderildi|Okundu|Bağlantı bekleniyor|Siz|Destek|{} yazıyor…|{} okunmamış|Çevrimdışısınız. Yazdıklarınız saklanır ve sonra gönderilir.|Şu anda bize ulaşılamıyor. Yazdıklarınız saklanır ve sonra gönderilir.|Bir kerede çok fazla. Kalanı {} sn sonra gönderilir.|Gönderilmedi – yeniden denemek için dokunun|Gönderilmedi (reddedildi) – yeniden denemek için dokunun|{} kaldır|Bir mesajın dosyaları toplam {} olabilir.|{}: bu dosya türünü kabul etmiyoruz.|Bir mesaja en çok on dosya eklenir.|Bu dosya alınamıyor.|Şu anda burada değiliz.|Dönüşümüz: {}.|E-posta adresinizi bırakın, oradan yanıtlayalım.|Ad|E-posta|Telefon|Lütfen doldurun.|Lütfen kontrol edin.|isteğe bağlı|Daha önce yazdınız mı? Kim olduğunuzu doğrulayın|E-posta adresiniz veya telefonunuz. Oraya bir kod göndeririz.|Vazgeç|Yeniden gönder|{} adresine bir kod gönderdik. Kim olduğunuzu doğrulamak için buraya yazın.|Doğrula|Teşekkürler. {} doğrulandı.|{} deneme kaldı.',
pl: 'Napisz do nas|Zamknij czat|Wiadomości|Twoja wiadomość|Napisz wiadomość…|Dołącz plik|Zrób zdjęcie|Wyślij|Wysyłanie…|Wysłano|Przeczytano|Czeka na połączenie|Ty|Wsparcie|{} pisze…|Nieprzeczytane: {}|Jesteś offline. To, co napiszesz, zachowamy i wyślemy później.|Nie można się teraz z nami połączyć. To, co napiszesz, zachowamy i wyślemy później.|To było dużo naraz. Reszta zostanie wysłana za {} s.|Nie wysłano – dotknij, aby ponowić|Nie wysłano (odrzucono) – dotknij, aby ponowić|Usuń {}|Pliki w wiadomości mogą mieć łącznie {}.|{}: nie przyjmujemy plików tego rodzaju.|Wiadomość mieści dziesięć plików.|Nie można pobrać tego pliku.|Teraz nas nie ma.|Wracamy {}.|Zostaw adres e-mail, a odpowiemy na niego.|Imię i nazwisko|E-mail|Telefon|Wypełnij to pole.|Sprawdź to pole.|opcjonalnie|Już do nas pisano? Potwierdź, kim jesteś|Twój adres e-mail lub telefon. Wyślemy tam kod.|Anuluj|Wyślij ponownie|Wysłaliśmy kod na {}. Wpisz go tutaj, aby potwierdzić, kim jesteś.|Potwierdź|Dziękujemy. Potwierdzono: {}.|Pozostałe próby: {}.',
ar: 'تحدث معنا|إغلاق المحادثة|الرسائل|رسالتك|اكتب رسالة…|إرفاق ملف|التقاط صورة|إرسال|جارٍ الإرسال…|أُرسلت|قُرئت|في انتظار الاتصال|أنت|الدعم|{} يكتب…|{} غير مقروءة|أنت غير متصل. نحتفظ بما تكتبه ونرسله لاحقًا.|لا يمكن الوصول إلينا الآن. نحتفظ بما تكتبه ونرسله لاحقًا.|كثير دفعةً واحدة. يُرسل الباقي خلال {} ث.|لم تُرسل – اضغط لإعادة المحاولة|لم تُرسل (مرفوضة) – اضغط لإعادة المحاولة|إزالة {}|الحد الأقصى لملفات الرسالة معًا {}.|{}: لا نقبل هذا النوع من الملفات.|عشرة ملفات كحد أقصى في الرسالة.|تعذر جلب هذا الملف.|نحن غير متاحين الآن.|نعود {}.|اترك بريدك الإلكتروني وسنرد عليه.|الاسم|البريد الإلكتروني|الهاتف|يرجى ملء هذا الحقل.|يرجى التحقق من هذا الحقل.|اختياري|هل راسلتنا من قبل؟ أكّد هويتك|بريدك الإلكتروني أو رقم هاتفك. سنرسل إليه رمزًا.|إلغاء|إعادة الإرسال|أرسلنا رمزًا إلى {}. اكتبه هنا لتأكيد هويتك.|تأكيد|شكرًا. تم تأكيد {}.|المحاولات المتبقية: {}.',
};
const RTL = ['ar', 'he', 'fa', 'ur'];
const known = (...tags) => tags.filter(Boolean).map((tag) => tag.toLowerCase().split('-')[0]).find((tag) => WORDS[tag]) || 'en';

const HUB = new URL(script.src).origin;
const CHANNEL = script.dataset.channel || 'chat';
const STORE = `hub-chat:${HUB}/${CHANNEL}`;
const PAGE = script.dataset.page !== undefined;
const POLL = 4000;
const IDLE = 30000;
const SILENCE = 40000;
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
const later = (ms) => ms * (1 + Math.random());
const failed = (answer) => Object.assign(new Error(`HTTP ${answer.status}`), { wait: Number(answer.headers.get('Retry-After')), status: answer.status });
const json = (body) => ({ method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });

let memory = '{}';
const recall = () => {
try { memory = localStorage.getItem(STORE) || '{}'; } catch { /* memory serves */ }
return JSON.parse(memory);
};
const remember = (change) => {
memory = JSON.stringify({ ...recall(), ...change });
try { localStorage.setItem(STORE, memory); } catch { /* until the page is left */ }
};
const alone = (work) => (navigator.locks ? navigator.locks.request(STORE, work) : work());

class Session extends HTMLElement {
messages = new Map();
rows = new Map();
queue = [];
acked = new Set();
reported = new Set();
arrived = new Set();
overrides = {};

get config() {
const { title, theme, accent, position } = script.dataset;
const tag = Object.entries({ title, theme, accent, position }).filter(([, value]) => value);
return { ...recall().config, ...Object.fromEntries(tag), ...this.overrides };
}

get language() {
return known(this.overrides.language, script.dataset.language, document.documentElement.lang, ...(navigator.languages || []), recall().config?.language);
}

get locale() { return (navigator.languages || []).find((tag) => known(tag) === this.language && tag.startsWith(this.language)) || this.language; }

t(key, value) { return fill(WORDS[this.language].split('|')[KEYS.indexOf(key)], value); }

told(text) { return typeof text === 'object' && text ? text[this.language] || text.en || Object.values(text)[0] : text || ''; }

async configure() {
const answer = await fetch(`${HUB}/chat/${CHANNEL}/config`).catch(() => ({}));
const config = answer.ok && await answer.json().catch(() => undefined);
this.asked = Date.now();
if (!config) return;
remember({ config });
this.dress();
}

adopt(running) {
const { visitor, token, expires = 0, queue = [], proved = '' } = recall();
const other = visitor !== this.visitor;
if (other || proved !== this.proved) {
this.stream?.abort();
this.rows.forEach((row) => row.remove());
[this.messages, this.rows].forEach((kept) => kept.clear());
this.seeded = false;
if (proved) this.settle();
}
if (other) {
[this.acked, this.reported, this.arrived].forEach((kept) => kept.clear());
if (this.visitor) {
this.queue = [];
this.settle();
}
}
Object.assign(this, { visitor, token, expires, proved });
this.offers();
const own = this.own();
if (!running) this.queue.push(...queue.filter((entry) => !own.has(entry.id)));
this.paint();
this.flush();
this.listen();
}

session(jwt) {
return alone(async () => {
const before = recall();
if (jwt === undefined && before.token !== this.token && before.expires * 1000 > Date.now()) return this.adopt(true);
const answer = await fetch(`${HUB}/chat/${CHANNEL}/session`, json({ resume: before.token, identify: jwt }));
if (!answer.ok) throw failed(answer);
const told = await answer.json();
this.newcomer = !before.token;
if (told.problem) console.error(`HubChat identify: ${told.problem}`);
this.begin(told, !before.visitor || before.visitor === told.visitor ? {} : { queue: [], typed: undefined, told: undefined });
});
}

begin({ token, visitor, expires, welcome, proved, codes, identified }, more) {
remember({ token, visitor, expires, welcome, identified, proved: proved.join(), offer: codes.length > 0 && !identified, ...more });
this.adopt(true);
}

proof() { return typeof this.identity === 'function' ? this.identity() : undefined; }

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

class Codes extends Session {
offers() { this.offer.hidden = Boolean(this.proved || !this.confirm.hidden || !recall().offer); }

ask() {
this.code = undefined;
this.fill(this.t('address'), this.t('send'), { type: 'text', inputMode: 'email', autocomplete: 'email', maxLength: 254,
autocapitalize: 'none', spellcheck: false }, link(this.t('cancel'), () => this.settle(true)));
this.field.focus();
}

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
this.order({ kind, value: typed }).then((done) => done && this.knows({ [kind]: typed }));
}

knows(typed) { remember({ typed: { ...recall().typed, ...typed } }); }

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

class Listening extends Codes {
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

async look(signal) {
for (let after = this.after(), more = true; more && !signal.aborted;) {
const answer = await this.call(`/chat/${CHANNEL}/messages?after=${after}`);
if (!answer.ok) throw failed(answer);
const page = await answer.json();
if (signal.aborted) return;
this.take(page);
more = after && page.more;
after = page.messages.at(-1)?.id;
}
}

after() {
const all = [...this.messages.values()];
const open = all.filter((m) => m.from === 'agent' && !m.ref).map((m) => m.id - 1);
return this.seeded ? Math.min(Math.max(0, ...this.messages.keys()), ...open) : 0;
}

async follow(outer) {
const inner = new AbortController();
const stop = () => inner.abort();
outer.addEventListener('abort', stop, { once: true });
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
const bare = (text) => text.replace(/[\s\0\ufeff]/g, '');
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

async read() {
const type = this.watched() ? 'read' : 'delivered';
const said = type === 'read' ? this.reported : this.arrived;
const refs = this.unread().map((m) => m.ref).filter((ref) => ref && !said.has(ref)).slice(0, 100);
if (!refs.length) return;
refs.forEach((ref) => said.add(ref));
this.paint();
const told = await this.call(`/in/${CHANNEL}`, json({ type, refs })).catch(() => ({}));
if (!told.ok) refs.forEach((ref) => said.delete(ref));
}

unread() { return [...this.messages.values()].filter((m) => m.from === 'agent' && !m.read && !this.reported.has(m.ref)); }
}

const takes = (accept, { name, type }) => !accept || accept.toLowerCase().split(',').map((rule) => rule.trim()).some((rule) => (
rule.startsWith('.') ? name.toLowerCase().endsWith(rule) : rule.endsWith('/*') ? rule === '*/*' || type.startsWith(rule.slice(0, -1)) : type === rule));

class Sending extends Listening {
files = [];
nap = new AbortController();

say() {
const text = this.text.value.trim();
if (!text && !this.files.length) return;
const fields = this.answers();
if (!fields) return;
const files = this.files.length ? this.files : undefined;
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

keep() {
const own = this.own();
const others = (recall().queue || []).filter((entry) => !own.has(entry.id));
remember({ queue: [...others, ...this.queue.filter((entry) => !entry.files && !this.acked.has(entry.id))] });
}

own() { return new Set([...this.acked, ...this.queue.map((entry) => entry.id)]); }

flush() {
this.flushing ??= this.empty().finally(() => { this.flushing = undefined; });
return this.flushing;
}

async empty() {
for (let tries = 0, entry; (entry = this.queue.find((one) => !this.acked.has(one.id) && one.problem !== 'refused'));) {
let wait = Math.min(30, 2 ** tries);
try {
if (!this.token) await this.session(await this.proof());
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

type() {
const busy = Boolean(this.text.value.trim());
if (!this.token || !this.messages.size || this.mute || busy === (Date.now() - (this.typed || 0) < TYPING)) return;
if (!busy && !this.typed) return;
this.typed = busy ? Date.now() : 0;
this.call(`/chat/${CHANNEL}/typing`, json({ typing: busy })).then((answer) => { this.mute = answer.status === 404; }, () => {});
}


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
this.over = event.type === 'drop' ? 0 : (this.over || 0) + ({ dragenter: 1, dragleave: -1 }[event.type] || 0);
this.dropzone.hidden = this.over < 1;
if (event.type === 'drop') this.add(event.dataTransfer.files);
}

pasted(event) {
const { files, types } = event.clipboardData;
if (!files.length || types.includes('text/plain')) return;
event.preventDefault();
this.add(files);
}

async download(file) {
const answer = await this.call(file.url).catch(() => ({}));
if (!answer.ok) { this.notify('lost'); return; }
const href = URL.createObjectURL(await answer.blob());
el('a', { href, download: file.name }).click();
setTimeout(() => URL.revokeObjectURL(href), 60000);
}

size(bytes) {
const [value, unit] = bytes < 1e6 ? [Math.ceil(bytes / 1000), 'kilobyte'] : [bytes / 1e6, 'megabyte'];
return value.toLocaleString(this.locale, { style: 'unit', unit, maximumFractionDigits: 1 });
}


closed() {
const { hours } = this.config;
return Boolean(hours && !hours.open && !(Date.parse(hours.opens_at) < Date.now()));
}

wants() {
const { typed = {}, told, identified, proved, token } = recall();
const started = told || identified || this.messages.size || (token && !this.seeded && !this.newcomer);
const fields = (started ? [] : this.config.prechat || []).filter(({ name }) => !typed[name]);
if (!this.closed() || identified || proved || typed.email) return fields;
return [...fields.filter(({ name }) => name !== 'email'), { name: 'email', type: 'email', required: true }];
}

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

class Chat extends Sending {
connectedCallback() {
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
this.rows.forEach((row) => row.remove());
this.rows.clear();
this.paint(true);
this.greet(config.greeting);
}

tint(accent) {
if (accent && CSS.supports('color', accent)) this.style.setProperty('--told-accent', accent);
const rgb = getComputedStyle(this.launch).backgroundColor.match(/^rgba?\((\d+), (\d+), (\d+)/);
if (!rgb) return;
const [r, g, b] = rgb.slice(1).map((part) => part / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
const light = 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
this.style.setProperty('--told-on-accent', 1.05 / light >= light / 0.05 ? '#fff' : '#000');
}

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

notify(key, value) {
this.noted = key;
this.note.textContent = this.t(key, value);
}

hush(...keys) { if (keys.includes(this.noted)) this.note.textContent = this.noted = ''; }

paint(quiet) {
const atEnd = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 80;
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
this.text.dir = this.text.value ? 'auto' : this.dir;
if (!this.open) return;
this.text.style.height = 'auto';
this.text.style.height = `${this.text.scrollHeight + 2}px`;
}

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
})();
