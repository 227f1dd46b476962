# ruff: noqa: RUF001, E501, SIM905  (words of two dozen languages, in rows)
"""What mail programs write around a quoted mail, in their users' languages: literal tables, all in lower case.

The wordings are those that the programs print: Gmail, Outlook, Apple Mail, Thunderbird, Yahoo, GMX, Proton, Zoho and mobile
clients, compared with the lists kept by discourse/email_reply_trimmer, crisp-oss/email-reply-parser and email-forward-parser,
alfonsrv/mail-parser-reply, closeio/quotequail and Thunderbird's localised composeMsgs.properties.
"""

from __future__ import annotations

# --- "wrote" ---------------------------------------------------------------------------------------------------------

# A verb of a language that parts words by blanks. Each may stand last ("On DATE, NAME wrote:") or in the middle ("Am DATE schrieb NAME:").
VERBS = (
    *("wrote", "writes", "said", "says", "wrote the following", "has written"),  # English
    *("schrieb", "schrieben", "schreibt", "geschrieben", "schrieb folgendes", "schrieben sie"),  # German
    *("a écrit", "a ecrit", "écrit", "écrivait", "écrivit", "nous a dit"),  # French
    *("escribió", "escribio", "ha escrito", "escribía", "va escriure"),  # Spanish, Catalan
    *("escreveu", "escreveu o seguinte"),  # Portuguese
    *("ha scritto", "scritto", "scrisse", "scrive", "scriveva"),  # Italian
    *("schreef", "geschreven", "schreef het volgende"),  # Dutch
    *("yazdı", "yazmış", "yazıyor", "şunu yazdı", "şunları yazdı"),  # Turkish
    *("napisał(a)", "napisał", "napisała", "pisze", "nadesłał", "nadesłał(a)", "wiadomość napisana przez"),  # Polish
    *("skrev", "skrev följande", "skrev følgende", "skriver", "har skrevet", "följande", "følgende"),  # Swedish, Danish, Norwegian
    *("kirjoitti", "kirjoitti seuraavaa"),  # Finnish
    *("napsal(a)", "napsal", "napsala", "napsal/a", "píše", "napísal(a)", "napísal", "napísala"),  # Czech, Slovak
    *("написал(а)", "написал", "написала", "писал", "писал(а)", "писала", "пишет", "написа"),  # Russian, Bulgarian
    *("пише", "написав", "написав(ла)", "написав(-ла)", "написала", "написав/-ла"),  # Ukrainian
    *("ezt írta", "írta", "a következőt írta", "írt"),  # Hungarian
    *("a scris", "a scris următoarele", "scris"),  # Romanian
    *("έγραψε", "έγραψε τα εξής", "έγραψε τα ακόλουθα"),  # Greek
    *("je napisao", "je napisala", "je napisao/la", "napisao", "đã viết", "menulis"),  # Croatian, Vietnamese, Indonesian
)
# The same in scripts without blanks between words, or with words joined to the name.
JOINED_VERBS = (
    *("写道", "寫道", "写了", "寫了"),  # Chinese
    *("のメッセージ", "のメール", "書きました", "が書いた", "さんは書きました"),  # Japanese
    *("작성", "작성했습니다", "작성하였습니다", "썼습니다", "쓴 글", "님이 작성"),  # Korean
    *("كتب", "كتبت", "كتابة ما يلي بواسطة", "جاء من"),  # Arabic
    *("כתב", "כתבה", "מאת"),  # Hebrew
    "เขียน",  # Thai
)

# The word an attribution begins with, before its date.
OPENERS = frozenset(
    [
        *("on", "at", "in message", "am", "le", "el", "em", "il", "il giorno", "in data", "op", "den", "d.", "dnia"),
        *("w dniu", "dňa", "dne"),
        *("в", "на", "у", "στις", "την", "τη", "în", "pe", "în data de", "la data de", "tarihinde", "在", "于", "於", "في"),
        *("بتاريخ", "يوم"),
        *("בתאריך", "ביום", "vào", "pada", "no dia", "dia", "el día"),
    ]
)

# Days of the week, whole and short, as programs begin an attribution with them. Without the dot or comma behind.
WEEKDAYS = frozenset(
    "monday tuesday wednesday thursday friday saturday sunday mon tue tues wed thu thur thurs fri sat sun "
    "montag dienstag mittwoch donnerstag freitag samstag sonnabend sonntag mo di mi do fr sa so "
    "lundi mardi mercredi jeudi vendredi samedi dimanche lun mar mer jeu ven sam dim "
    "lunes martes miércoles jueves viernes sábado domingo mié mie jue vie sáb sab dom "
    "segunda terça quarta quinta sexta segunda-feira terça-feira quarta-feira quinta-feira sexta-feira seg ter qua qui sex "
    "lunedì martedì mercoledì giovedì venerdì sabato domenica gio "
    "maandag dinsdag woensdag donderdag vrijdag zaterdag zondag ma wo vr za zo "
    "pazartesi salı çarşamba perşembe cuma cumartesi pazar pzt sal çar per cum cmt paz "
    "poniedziałek wtorek środa czwartek piątek sobota niedziela pon pn wt śr sr czw pt sob nd niedz "
    "måndag tisdag onsdag torsdag fredag lördag söndag mån tis ons tor tors fre lör sön "
    "mandag tirsdag lørdag søndag man tir tirs lør søn "
    "maanantai tiistai keskiviikko torstai perjantai lauantai sunnuntai ti ke to pe la su "
    "pondělí úterý středa čtvrtek pátek neděle po út st čt pá ne "
    "понедельник вторник среда четверг пятница суббота воскресенье понеділок вівторок середа четвер п'ятниця субота неділя "
    "пн вт ср чт пт сб вс нд "
    "hétfő kedd szerda csütörtök péntek szombat vasárnap h k sze cs p szo v "
    "luni marți marti miercuri joi vineri sâmbătă duminică mie joi vin sâm dum "
    "δευτέρα τρίτη τετάρτη πέμπτη παρασκευή σάββατο κυριακή δευ τρί τετ πέμ παρ σάβ κυρ "
    "الاثنين الثلاثاء الأربعاء الخميس الجمعة السبت الأحد الإثنين".split()
)

# Words after a verb that make it the writer's own sentence ("Am 3. Mai schrieb ich Ihnen:"), not a name.
PRONOUNS = frozenset(
    "i you we they he she ich wir sie er du ihr mir uns man je vous nous tu il elle ils yo usted nosotros él ella eu você vocês nós ele ela "
    "io lei noi lui ik wij we u jij hij zij jag vi ni du han hon jeg dere de hun minä te me ja pan pani my wy wir я вы ты мы он она они ви ми він".split()
)

# --- The lines between own words and an unmarked quote ------------------------------------------------------------------

# Between dashes: "-----Original Message-----".
ORIGINAL = frozenset(
    [
        *("original message", "original mail", "original email", "original e-mail", "reply message", "originalmessage", "mensaje original"),
        *("ursprüngliche nachricht", "originalnachricht", "original-nachricht", "ursprüngliche mail", "urspr. nachricht"),
        *("original nachricht",),
        *("message d'origine", "message d’origine", "message original", "message initial", "e-mail d'origine", "mail original"),
        *("correo original", "mensagem original", "email original", "messaggio originale", "messaggio d'origine", "oorspronkelijk bericht"),
        *("origineel bericht", "oorspronkelijke mail", "orijinal mesaj", "orijinal ileti", "özgün ileti", "asıl mesaj", "özgün mesaj"),
        *("wiadomość oryginalna", "oryginalna wiadomość", "treść oryginalnej wiadomości", "pierwotna wiadomość", "ursprungligt meddelande"),
        *("originalmeddelande", "ursprungligt mejl", "oprindelig meddelelse", "oprindelig besked", "oprindelig mail"),
        *("opprinnelig melding",),
        *("original melding", "alkuperäinen viesti", "původní zpráva", "původní e-mail", "pôvodná správa", "исходное сообщение"),
        *("оригинальное сообщение", "первоначальное сообщение", "начальное сообщение", "оригінальне повідомлення"),
        *("початкове повідомлення",),
        *(
            "вихідне повідомлення",
            "оригинално писмо",
            "原始邮件",
            "原始郵件",
            "原邮件",
            "原始信件",
            "元のメッセージ",
            "元のメール",
            "オリジナルメッセージ",
        ),
        *("original message の内容", "원본 메시지", "원본 메일", "원본메시지", "الرسالة الأصلية", "الرسالة الأصليَّة", "رسالة أصلية"),
        *("הודעה מקורית",),
        *("ההודעה המקורית", "eredeti üzenet", "eredeti levél", "mesajul original", "mesaj original", "mesajul inițial", "αρχικό μήνυμα"),
        *("πρωτότυπο μήνυμα", "izvorna poruka", "missatge original", "thư gốc", "pesan asli"),
    ]
)
# Between dashes, or alone before a colon: "Begin forwarded message:".
FORWARDED = frozenset(
    [
        *("forwarded message", "begin forwarded message", "start of forwarded message", "forwarded mail", "fwd"),
        *("weitergeleitete nachricht", "anfang der weitergeleiteten nachricht", "anfang der weitergeleiteten e-mail"),
        *("beginn der weitergeleiteten nachricht",),
        *("message transféré", "message transmis", "début du message réexpédié", "début du message transféré"),
        *("message réexpédié", "courriel transféré"),
        *("mensaje reenviado", "inicio del mensaje reenviado", "mensaje transferido", "mensagem encaminhada", "mensagem reencaminhada"),
        *("início da mensagem encaminhada", "início da mensagem reencaminhada", "messaggio inoltrato", "inizio messaggio inoltrato"),
        *("doorgestuurd bericht", "begin doorgestuurd bericht", "begin van doorgestuurd bericht", "i̇letilen ileti", "iletilen ileti"),
        *("i̇letilmiş mesaj", "iletilmiş mesaj", "i̇leti başlangıcı", "ileti başlangıcı", "yönlendirilmiş mesaj"),
        *("i̇letilen mesaj", "iletilen mesaj"),
        *("przekazana wiadomość", "treść przekazanej wiadomości", "początek przekazywanej wiadomości", "wiadomość przesłana dalej"),
        *("vidarebefordrat meddelande", "vidarebefordrat mejl", "vidarebefordrat brev", "videresendt meddelelse", "videresendt besked"),
        *("start på videresendt besked", "videresendt melding", "begynnelse på videresendt melding", "edelleenlähetetty viesti"),
        *("välitetty viesti", "välitetty viesti alkaa", "välitetty viesti / fwd.msg", "přeposlaná zpráva", "začátek přeposílané zprávy"),
        *("preposlaná správa", "začiatok preposlanej správy", "пересылаемое сообщение", "перенаправленное сообщение"),
        *("пересланное сообщение",),
        *("начало переадресованного сообщения", "переадресованное сообщение", "переслане повідомлення", "перенаправлене повідомлення"),
        *(
            "початок листа, що пересилається",
            "转发的消息",
            "转发邮件",
            "转发的邮件",
            "轉寄郵件",
            "轉寄的郵件",
            "已转发的邮件",
            "開始轉寄郵件",
            "开始转发的邮件",
        ),
        *("転送メール", "転送されたメッセージ", "メッセージを転送", "전달된 메시지", "전달된 메일", "رسالة معاد توجيهها", "رسالة ممرّرة"),
        *("بداية الرسالة المعاد توجيهها",),
        *("הודעה שהועברה", "תחילת ההודעה שהועברה", "továbbított üzenet", "továbbított levél", "továbbított levél kezdete"),
        *("mesaj redirecționat",),
        *("începe mesajul redirecționat", "mesaj redirectionat", "προωθημένο μήνυμα", "αρχή προωθημένου μηνύματος", "proslijeđena poruka"),
        *("započni proslijeđenu poruku", "missatge reenviat"),
    ]
)

# Header label -> its role. "sent" is a date that only mail programs call so; people write "Date:" in a form of their own, too.
LABELS = {
    label: role
    for role, labels in {
        "from": "from|von|de|da|van|från|fra|od|lähettäjä|feladó|expeditor|expeditorul|de la|kimden|gönderen|от|отправитель|від|від кого"
        "|发件人|寄件者|寄件人|差出人|送信者|보낸 사람|보낸사람|발신|من|מאת|από|expéditeur|mittente|nadawca|šalje|saatja|afzender|avsändare|remitente",
        "sent": "sent|gesendet|envoyé|envoyé le|enviado|enviado el|enviado em|enviada em|enviada|enviados|inviato|verzonden|skickat|sendt|wysłano"
        "|wysłane|odesláno|odoslané|gönderildi|gönderme tarihi|gönderilme|lähetetty|отправлено|надіслано|дата отправки|发送时间|寄件日期|傳送日期|已发送"
        "|送信日時|보낸 날짜|보낸날짜|تاريخ الإرسال|المرسلة|تم الإرسال|נשלח|elküldve|küldve|trimis|στάλθηκε|εστάλη|poslano|data de envio|sendedatum",
        "date": "date|datum|fecha|data|dato|tarih|päivämäärä|päiväys|pvm|дата|日期|日時|날짜|التاريخ|תאריך|dátum|dată|ημερομηνία|le|时间",
        "to": "to|an|à|a|para|pour|aan|till|til|do|komu|vastaanottaja|címzett|către|catre|destinatarul|kime|alıcı|кому|收件人|收件者|宛先|받는 사람"
        "|받는사람|إلى|الى|אל|προς|destinataire|destinatario|destinatário|adresat|prima|pre",
        "cc": "cc|kopie|copie|copia|kopia|kopi|kopio|másolat|копия|копія|抄送|副本|참조|نسخة|עותק|κοιν|bcc|cci|cco|ccn|dw|do wiadomości|bilgi|reply-to"
        "|antwort an|répondre à|responder a|risposta|beantwoorden - aan|в копии|importance|wichtigkeit|priorität|attachments"
        "|anlagen|organization",
        "subject": "subject|betreff|objet|sujet|asunto|assunto|oggetto|onderwerp|ämne|emne|aihe|temat|předmět|predmet|tárgy|subiect|subiectul|konu|тема"
        "|主题|主旨|主題|件名|제목|الموضوع|נושא|θέμα|naslov|re|betr|betr.",
    }.items()
    for label in labels.split("|")
}

# --- What stands below the own words ------------------------------------------------------------------------------------

# How a line begins that a program puts below a mail.
SENT_FROM = (
    *("sent from", "sent via", "sent with", "sent by", "sent using", "sent through", "<<sent by", "get outlook for"),
    *("download outlook for",),
    *("gesendet von", "gesendet mit", "gesendet über", "gesendet aus", "holen sie sich outlook", "laden sie outlook", "versendet mit"),
    *("envoyé depuis", "envoyé de ", "envoyé à partir", "envoyé avec", "envoyé via", "envoyé par", "envoyée depuis"),
    *("télécharger outlook", "obtenir outlook", "enviado desde", "enviado con", "enviado de ", "enviado do ", "enviado a partir"),
    *("enviado pelo", "enviado via", "enviado com", "enviado por", "obtener outlook", "obtén outlook", "descargar outlook"),
    *("obter o outlook", "obter outlook", "baixe o outlook", "baixar o outlook", "inviato da", "inviato dal", "inviato con"),
    *("inviato tramite", "ottieni outlook", "scarica outlook", "verzonden met", "verzonden vanaf", "verzonden via", "verzonden van"),
    *("verstuurd vanaf", "verstuurd met", "verstuurd via", "verstuurd vanuit", "download outlook", "skickat från", "skickat via"),
    *("skickat med", "skickades från", "från min ", "hämta outlook", "sendt fra", "sendt via", "sendt med", "hent outlook", "få outlook"),
    *("skaff deg outlook", "last ned outlook", "lähetetty ", "hanki outlook", "lataa outlook", "wysłano z", "wysłane z", "wysłane za"),
    *("wysłano za", "pobierz outlook", "pobierz aplikację outlook", "odesláno z", "odesláno pomocí", "posláno z", "odoslané z"),
    *("získat outlook", "stáhnout outlook", "получить outlook", "отправлено с", "отправлено из", "отправлено от", "отправлено через"),
    *("скачать outlook", "надіслано з", "надіслано із", "відправлено з", "відправлено із", "отримати outlook", "outlook uygulamasını"),
    *("trimis de pe", "trimis din", "trimis de la", "trimis cu", "descărcați outlook", "στάλθηκε από", "αποστολή από", "εστάλη από"),
    *("poslano s ", "poslano z ", "发自", "發自", "来自我的", "來自我的", "获取 outlook", "取得 outlook", "أرسلت من", "أُرسلت من"),
    *("مرسل من", "تم الإرسال من", "נשלח מ", "הורד את outlook", "from my iphone", "from my ipad", "from my android"),
)
# The same in languages where the verb stands last: how the line begins, and how it ends.
SENT_LAST = (
    (("von mein", "diese nachricht wurde ", "diese e-mail wurde ", "diese mail wurde "), ("gesendet", "verschickt", "versendet")),
    (("outlook für ", "outlook voor "), ("beziehen", "downloaden", "herunterladen")),
    (
        ("iphone", "ipad", "ios", "android", "samsung", "galaxy", "xiaomi", "huawei", "outlook"),
        ("gönderildi", "gönderilmiştir", "edinin", "から送信", "から送信されました"),
    ),
    (("az iphone", "az ipad", "iphone", "ipad", "android", "samsung", "a samsung", "xiaomi"), ("küldve", "küldtem")),
    (("나의 ", "내 ", "iphone", "ipad", "갤럭시"), ("에서 보냄", "에서 보냈습니다")),
    (("从我的", "從我的"), ("发送", "傳送", "發送", "传送")),
)
# What such a line speaks of; without one of these it may be a sentence.
DEVICES = (
    *("iphon", "ipad", "ipod", "ios", "android", "samsung", "galaxy", "갤럭시", "huawei", "xiaomi", "redmi", "pixel", "oneplus", "nokia"),
    *("sony", "oppo", "blackberry", "htc", "outlook", "yahoo", "gmail", "gmx", "web.de", "proton", "mail.ru", "яндекс", "yandex", "почт"),
    *("bluemail", "k-9", "airmail", "sparrow", "thunderbird", "windows", "mobil", "smartphone", "handy", "telefon", "teléfono", "phone"),
    *("tablet", "мобил", "телефон", "apple", "mail app", "mail-app", "maildroid", "aquamail", "mailbird", "fastmail", "tutanota", "zoho"),
    *("t-online", "freenet", "laposte", "puhelim", "celular", "appareil", "apparaat", "手机", "手機", "fairphone"),
    *("motorola", "superhuman"),
)
# Footers that programs and providers add in a paragraph of their own.
FOOTERS = (
    *("virus-free", "virenfrei", "libre de virus", "garanti sans virus", "sans virus", "privo di virus", "virusvrij", "livre de vírus"),
    *("wolny od wirusów", "this email has been checked for viruses", "this e-mail has been checked for viruses"),
    *("diese e-mail wurde auf viren", "diese e-mail wurde von avast", "cet e-mail a été vérifié"),
    *("este correo electrónico ha sido comprobado",),
    *("questa e-mail è stata controllata", "please consider the environment", "consider the environment before"),
    *("bitte denken sie an die umwelt", "denken sie an die umwelt", "pensez à l'environnement", "pensez à l’environnement"),
    *("antes de imprimir este", "prima di stampare questa", "denk aan het milieu", "you received this message because you are subscribed"),
)
# The formula above a name: where one stands, what follows the name may be a block of contact data.
CLOSINGS = (
    *("best regards", "kind regards", "warm regards", "regards", "best wishes", "best", "thanks", "thank you", "many thanks", "cheers"),
    *("sincerely", "yours sincerely", "yours faithfully", "all the best", "mit freundlichen grüßen", "mit freundlichen gruessen"),
    *("mit freundlichem gruß", "freundliche grüße", "viele grüße", "liebe grüße", "beste grüße", "herzliche grüße", "schöne grüße", "mfg"),
    *("viele gruesse", "gruß", "grüße", "lg", "vg", "cordialement", "bien cordialement", "bien à vous", "salutations"),
    *("sincères salutations",),
    *("meilleures salutations", "saludos", "un saludo", "saludos cordiales", "atentamente", "cordialmente", "gracias", "atenciosamente"),
    *("cumprimentos", "com os melhores cumprimentos", "obrigado", "obrigada", "abraço", "cordiali saluti", "distinti saluti", "saluti"),
    *("grazie", "met vriendelijke groet", "vriendelijke groet", "hartelijke groet", "groeten", "saygılarımla"),
    *("iyi çalışmalar", "teşekkürler"),
    *("pozdrawiam", "z poważaniem", "z pozdrowieniami", "med vänliga hälsningar", "vänliga hälsningar", "mvh", "hälsningar"),
    *("med venlig hilsen", "venlig hilsen", "med vennlig hilsen", "vennlig hilsen", "hilsen", "ystävällisin terveisin", "terveisin"),
    *("s pozdravem", "с уважением", "з повагою", "此致", "よろしくお願い", "감사합니다", "üdvözlettel", "tisztelettel", "cu stimă"),
    *("με εκτίμηση", "بالتحية", "مع التحية", "بكل احترام", "בברכה"),
)
# How a paragraph of a lawyer begins, or what only such a paragraph says.
DISCLAIMERS = (
    *("confidentiality notice", "confidentiality note", "legal disclaimer", "privileged and confidential"),
    *("this email and any attachment", "this e-mail and any attachment"),
    *("this email and any files", "this e-mail and any files", "the information contained in this e"),
    *("the information in this e", "this message and any attachment"),
    *("this message contains confidential", "this email may contain confidential"),
    *("this e-mail may contain confidential", "this message is intended only", "the contents of this email"),
    *("if you are not the intended recipient", "this email is confidential", "this e-mail is confidential"),
    *("this communication is confidential", "this message (including any attachment"),
    *("diese e-mail enthält vertrauliche", "diese email enthält vertrauliche", "diese e-mail ist vertraulich"),
    *("diese nachricht ist vertraulich", "diese nachricht enthält vertrauliche"),
    *("der inhalt dieser e-mail", "diese e-mail kann vertrauliche", "diese mail enthält vertrauliche"),
    *("die information in dieser e", "die in dieser e-mail enthaltenen", "vertraulichkeitshinweis"),
    *("ce message et toutes les pièces", "ce message et ses pièces jointes", "ce message et les pièces"),
    *("ce courriel et", "ce message est confidentiel", "avis de confidentialité"),
    *("cet e-mail et", "ce mail et", "les informations contenues dans ce", "este mensaje y sus archivos"),
    *("este mensaje y los", "este correo electrónico y", "este mensaje puede contener"),
    *("este mensaje es confidencial", "aviso legal", "aviso de confidencialidad", "la información contenida en este"),
    *("este e-mail e", "esta mensagem", "aviso de confidencialidade"),
    *("questo messaggio e", "questa e-mail e", "le informazioni contenute in quest", "il presente messaggio"),
    *("il contenuto di quest", "dit bericht is", "dit e-mailbericht", "deze e-mail"),
    *("de informatie in dit", "de informatie in deze", "ta wiadomość", "niniejsza wiadomość", "wiadomość ta"),
    *("treść tej wiadomości", "informacje zawarte w", "detta meddelande", "detta mejl"),
    *("denne e-mail", "denne meddelelse", "denne e-posten", "denne meldingen", "tämä viesti", "tämä sähköposti"),
    *("tato zpráva", "tento e-mail", "bu e-posta", "bu mesaj", "bu elektronik posta"),
    *("это сообщение", "данное сообщение", "настоящее сообщение", "це повідомлення", "本邮件", "此邮件", "本メール", "このメール"),
    *("ez az üzenet", "ez az e-mail", "acest mesaj", "acest e-mail"),
)
# A disclaimer speaks of one of these; otherwise it is a sentence that begins like one ("Diese Nachricht ist mir wichtig").
SECRETS = (
    *("confidential", "privileged", "intended recipient", "unauthori", "vertraulich", "unbefugt", "confidentiel"),
    *("confidencial", "riservat"),
    *("confidenzial", "vertrouwelijk", "poufn", "konfidentiell", "fortrolig", "luottamuksel", "důvěrn", "gizli", "конфиденциал"),
    *("конфіденц", "保密", "机密", "機密", "bizalmas", "confidențial"),
)

# What says that answers stand inside an unmarked quote: then it cannot be told apart, and all is shown.
ANSWERS_WITHIN = (
    *("inline", "in-line", "in red", "in blue", "in green", "answers below", "comments below", "replies below"),
    *("responses below", "answered below", "see my answers", "my answers in"),
    *("in rot", "in blau", "in grün", "antworten unten", "antworten stehen unten", "antworten siehe unten"),
    *("kommentare unten", "antworten im text", "im text beantwortet", "antworten darunter"),
    *("en rouge", "en bleu", "en vert", "réponses ci-dessous", "réponses dans le", "réponses en dessous", "en rojo"),
    *("en azul", "en verde", "respuestas abajo", "respuestas más abajo"),
    *("respuestas a continuación", "em vermelho", "em azul", "respostas abaixo", "in rosso", "in blu"),
    *("risposte sotto", "risposte di seguito", "in het rood", "in het blauw", "antwoorden hieronder"),
    *("antwoorden staan hieronder", "czerwon", "odpowiedzi poniżej", "svar nedan", "svar nedenfor", "i rött"),
    *("med rødt", "vastaukset alla", "odpovědi níže", "красным", "ответы ниже", "kırmızı", "cevaplarım aşağıda"),
)
