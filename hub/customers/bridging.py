"""May this identifier join people? Some addresses are a desk, a line or a system: whoever proves one has not proved to be one person.

Such an identifier is a perfectly good sender and keeps its own conversation; it may only not bridge, so that two people who
both answer for info@ never see each other's history. Pure, and about the value alone: what is shared or recycled is for the
evidence to say.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

import phonenumbers
from phonenumbers import PhoneNumberType, ValidationResult

# The local parts that name a post, a team or a program, by the language they are said in, without accents. No first name, and no
# word that is rather a surname (bill, board, store): public lists of role prefixes hold alexa, denver, paris and sydney, and
# keep people apart from themselves. Some posts are rare surnames all the same (sales, service, press, jobs), and stay.
# A word that is missing costs little: two signed accounts on one address mark it as shared.
_WORDS = {
    "RFC 2142": "abuse ftp hostmaster info marketing news noc postmaster sales security support usenet uucp webmaster www",
    "en": """
        accounting accounts accountspayable accountsreceivable admin administration administrator admissions ads advertising alerts
        appointments billing booking bookings bounce bounces careers claims compliance concierge contact contactus customercare
        customerservice customersupport daemon delivery donotreply dpo enquiries enquiry events everyone feedback finance frontdesk gdpr
        headoffice hello help helpdesk hr humanresources information inquiries inquiry invoice invoices invoicing it itsupport jobs legal
        logistics mail mailerdaemon management media newsletter noreply notification notifications office operations order orders partners
        payments payroll press privacy procurement purchasing reception recruiting recruitment refunds reservation reservations returns
        service servicedesk services shipping shop staff subscriptions supportdesk sysadmin team techsupport unsubscribe warehouse web
        website
    """,
    "de": """
        anfrage anfragen bestellung bestellungen bewerbung bewerbungen buchhaltung buero buro datenschutz einkauf empfang
        geschaeftsfuehrung geschaftsfuhrung hilfe kanzlei karriere kontakt kundendienst kundenservice poststelle praxis presse rechnung
        rechnungen redaktion reklamation reservierung rezeption sekretariat verkauf versand vertrieb verwaltung zentrale
    """,
    "es": """
        administracion atencionalcliente ayuda compras consultas contabilidad contacto facturacion facturas informacion oficina pedidos
        prensa recepcion reclamaciones recursoshumanos reservas rrhh soporte ventas
    """,
    "fr": """
        accueil achats assistance boutique commandes comptabilite direction facturation factures livraison mairie recrutement renseignements
        rh sav secretariat serviceclient serviceclients ventes
    """,
    "pt": """
        atendimento cobranca comercial contato escritorio faturamento financeiro imprensa ouvidoria recepcao sac secretaria suporte vendas
    """,
    "it": """
        acquisti amministrazione assistenza commerciale contabilita direzione fatture fatturazione informazioni ordini prenotazioni
        segreteria servizioclienti spedizioni supporto ufficio vendite
    """,
    "nl": """
        administratie boekhouding facturatie facturen informatie inkoop kantoor klantenservice receptie reserveringen secretariaat
        vacatures verkoop
    """,
}
ROLES = frozenset(word for words in _WORDS.values() for word in words.split())

# What forms and imports write where nobody gave an address; nobody@ is also the Unix account of no one.
PLACEHOLDERS = frozenset({"anonymous", "nobody", "noemail", "nomail", "none", "null", "undefined", "unknown"})

# What may stand beside a role word in one local part and leaves it one (sales-emea, support.de, info2): regions and the like, a
# closed list, because any other word may be a name (sales.maria).
_REGIONS = "apac at be benelux br ch dach de emea es eu fr gb global int international intl it latam mx nl nordics pt uk us usa"
_UNITS = "center centre department dept desk group online"
_BESIDE_A_ROLE = frozenset(f"{_REGIONS} {_UNITS}".split())
_SEPARATORS = re.compile(r"[-._]+")
# Programs that put an id of each mail or recipient behind their name (variable envelope return paths and the like).
_PROGRAM = re.compile(r"(no[-._]?reply|do[-._]?not[-._]?reply|bounces?|mailer[-._]?daemon|notifications?)[-._+=].*", re.DOTALL)

# One line behind which many people answer, or nobody does.
_SHARED_LINES = {
    PhoneNumberType.TOLL_FREE: "a toll-free number: many people answer it",
    PhoneNumberType.UAN: "a company's one number for all its desks: many people answer it",
    PhoneNumberType.SHARED_COST: "a shared-cost number: a business's line, not one subscriber's",
    PhoneNumberType.PREMIUM_RATE: "a premium-rate number: a business's line, not one subscriber's",
}


@lru_cache(maxsize=65_536)
def why_not(kind: str, value: str) -> str:
    """Why a canonical identifier may not bridge, in plain words, or an empty text where it may.

    It says "may not bridge", never "is not a person": somebody alone may well read info@. About kinds other than e-mail, phone and
    sender word it says nothing.
    """
    if kind == "email":
        return _about_mailbox(value.rpartition("@")[0])
    if kind == "phone":
        return _about_number(value)
    if kind == "sender_word":
        return "a short code or a word as a sender: a system's name, not one subscriber's number"
    return ""


def _about_mailbox(local: str) -> str:
    plain = "".join(c for c in unicodedata.normalize("NFKD", local) if not unicodedata.combining(c)).lower()
    if _PROGRAM.fullmatch(plain):
        return "an address that a program sends from"
    words = [word.rstrip("0123456789") for word in _SEPARATORS.split(plain.partition("+")[0])]
    said = "".join(words)
    if said in PLACEHOLDERS:
        return f"a placeholder ({local}@): what is written where nobody gave an address"
    spelled = [word for word in words if word]  # a number alone is no word: support-2
    if said in ROLES or (any(word in ROLES for word in spelled) and all(word in ROLES or word in _BESIDE_A_ROLE for word in spelled)):
        return f"a role mailbox ({local}@): more than one person may read it"
    return ""


def _about_number(value: str) -> str:
    if ";ext=" in value:
        return "a number with an extension: a desk, and whoever sits at it"
    try:
        number = phonenumbers.parse(value, None)
    except phonenumbers.NumberParseException:
        return "no full phone number"
    # Complete only within its town, or shorter than its country's numbers are now: it may be several subscribers' number.
    if phonenumbers.is_possible_number_with_reason(number) != ValidationResult.IS_POSSIBLE:
        return "a number shorter than its country's numbers: several subscribers may have it"
    return _SHARED_LINES.get(phonenumbers.number_type(number), "")
