"""What customers are asked and told, in the languages our first users write. The business may put its own words to the question."""

from __future__ import annotations

from dataclasses import dataclass

from hub.survey_policy import SurveyPolicy


@dataclass(frozen=True, slots=True)
class Words:
    """Everything the message and its page say in one language. `questions` and `ends` (lowest, highest) go by kind."""

    questions: dict[str, str]
    ends: dict[str, tuple[str, str]]
    please: str  # before the link
    once: str  # how much trouble it is
    comment: str
    send: str
    change: str
    thanks: str
    noted: str
    until: str
    over: str
    unknown: str
    choose: str
    busy: str


WORDS: dict[str, Words] = {
    "en": Words(
        questions={
            "csat": "How satisfied are you with the help you received?",
            "nps": "How likely are you to recommend us to a friend or colleague?",
            "effort": "How much do you agree? “It was easy to get my issue solved.”",
        },
        ends={
            "csat": ("Very dissatisfied", "Very satisfied"),
            "nps": ("Not at all likely", "Extremely likely"),
            "effort": ("Strongly disagree", "Strongly agree"),
        },
        please="Please tell us here:",
        once="One click, and a comment if you like.",
        comment="Would you like to add anything? (optional)",
        send="Send",
        change="Change my answer",
        thanks="Thank you!",
        noted="Your answer is noted.",
        until="You can change it here until the link runs out.",
        over="This survey is over. Thank you all the same.",
        unknown="This link is not one of ours, or it was cut off on its way.",
        choose="Please choose one of the numbers.",
        busy="That was a lot at once. Please try again in a minute.",
    ),
    "de": Words(
        questions={
            "csat": "Wie zufrieden sind Sie mit der Hilfe, die Sie erhalten haben?",
            "nps": "Wie wahrscheinlich ist es, dass Sie uns weiterempfehlen?",
            "effort": "Wie sehr stimmen Sie zu? „Es war einfach, mein Anliegen zu lösen.“",
        },
        ends={
            "csat": ("Sehr unzufrieden", "Sehr zufrieden"),
            "nps": ("Sehr unwahrscheinlich", "Sehr wahrscheinlich"),
            "effort": ("Stimme gar nicht zu", "Stimme voll zu"),
        },
        please="Bitte sagen Sie es uns hier:",
        once="Ein Klick, und ein Kommentar, wenn Sie mögen.",
        comment="Möchten Sie etwas hinzufügen? (freiwillig)",
        send="Absenden",
        change="Antwort ändern",
        thanks="Vielen Dank!",
        noted="Ihre Antwort ist notiert.",
        until="Sie können sie hier ändern, bis der Link abläuft.",
        over="Diese Umfrage ist beendet. Trotzdem vielen Dank.",
        unknown="Dieser Link ist keiner von uns, oder er wurde unterwegs abgeschnitten.",
        choose="Bitte wählen Sie eine der Zahlen.",
        busy="Das war viel auf einmal. Bitte versuchen Sie es in einer Minute noch einmal.",
    ),
    "fr": Words(
        questions={
            "csat": "Êtes-vous satisfait de l’aide que vous avez reçue ?",  # noqa: RUF001
            "nps": "Quelle est la probabilité que vous nous recommandiez à un proche ?",
            "effort": "Êtes-vous d’accord ? « Il a été facile de résoudre mon problème. »",  # noqa: RUF001
        },
        ends={
            "csat": ("Très insatisfait", "Très satisfait"),
            "nps": ("Pas du tout probable", "Très probable"),
            "effort": ("Pas du tout d’accord", "Tout à fait d’accord"),  # noqa: RUF001
        },
        please="Dites-le-nous ici :",
        once="Un clic, et un commentaire si vous le souhaitez.",
        comment="Souhaitez-vous ajouter quelque chose ? (facultatif)",
        send="Envoyer",
        change="Modifier ma réponse",
        thanks="Merci !",
        noted="Votre réponse est enregistrée.",
        until="Vous pouvez la modifier ici jusqu’à l’expiration du lien.",  # noqa: RUF001
        over="Cette enquête est terminée. Merci tout de même.",
        unknown="Ce lien n’est pas l’un des nôtres, ou il a été coupé en route.",  # noqa: RUF001
        choose="Veuillez choisir l’un des chiffres.",  # noqa: RUF001
        busy="C’était beaucoup à la fois. Réessayez dans une minute.",  # noqa: RUF001
    ),
    "es": Words(
        questions={
            "csat": "¿Qué tan satisfecho está con la ayuda que recibió?",
            "nps": "¿Qué probabilidad hay de que nos recomiende a un amigo o colega?",
            "effort": "¿Está de acuerdo? «Fue fácil resolver mi problema.»",
        },
        ends={
            "csat": ("Muy insatisfecho", "Muy satisfecho"),
            "nps": ("Nada probable", "Muy probable"),
            "effort": ("Muy en desacuerdo", "Muy de acuerdo"),
        },
        please="Díganoslo aquí:",
        once="Un clic, y un comentario si lo desea.",
        comment="¿Desea añadir algo? (opcional)",
        send="Enviar",
        change="Cambiar mi respuesta",
        thanks="¡Gracias!",
        noted="Su respuesta quedó registrada.",
        until="Puede cambiarla aquí hasta que el enlace caduque.",
        over="Esta encuesta ha terminado. Gracias de todos modos.",
        unknown="Este enlace no es nuestro, o se cortó en el camino.",
        choose="Elija uno de los números.",
        busy="Fue mucho a la vez. Inténtelo de nuevo en un minuto.",
    ),
}


def language(known: str, rules: SurveyPolicy) -> str:
    """The language to ask in: the customer's own (`de`, `de-AT`, `de_AT`) where there are words in it, else the policy's. Pure."""
    for wanted in (known, rules.language):
        short = wanted.strip().lower().replace("_", "-").partition("-")[0]
        if short in WORDS:
            return short
    return "en"


def question(kind: str, language: str, rules: SurveyPolicy) -> str:
    """The question, in the business's own words where it has any in that language."""
    return rules.questions.get(language, "").strip() or WORDS[language].questions[kind]


def message(kind: str, language: str, link: str, rules: SurveyPolicy) -> str:
    """The message that asks. Pure."""
    words = WORDS[language]
    return f"{question(kind, language, rules)}\n\n{words.please} {link}\n{words.once}"
