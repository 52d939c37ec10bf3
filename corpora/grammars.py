"""Small English, Spanish and Italian grammars of home-assistant commands, and sentences drawn from them."""

import re
from collections.abc import Mapping
from random import Random

Grammar = Mapping[str, tuple[str, ...]]

ENGLISH: Grammar = {
    "sentence": (
        "{switch} {device} {room}", "{switch} {device} {room}", "{switch} {device} {room} {when}",
        "{dim} the lights {room} to {share} percent", "Make the lights {room} {colour}",
        "Set the {heating} {room} to {degrees} degrees", "Set the oven to {oven} degrees",
        "Set a timer for {amount} {unit}", "Set a timer for {amount} minutes for {food}",
        "Wake me up {day} at {time}", "Set an alarm for {date} at {time}", "Cancel the alarm for {date} at {time}",
        "{open} {opening} {room}", "{open} {opening} {room} {when}", "{lock} {entrance} {room}",
        "Play {music} {room}", "Play {music} {when}", "Turn the volume {room} {direction}",
        "Add {item} to the shopping list", "Add {amount} {goods} to the list",
        "Remind me to {task} {when}", "Remind me to {task} {day} at {time}", "Don't forget to {task} {when}",
        "Is {lit} {room} still on?", "Is {entrance} {room} open?", "How warm is it {room}?",
        "What's the weather like in {city} {forecast}?", "Will it {rain} in {city} {forecast}?",
        "Call {person}", "Call {person} {when}", "Tell {person} that {news}",
        "Start the {machine} {when}", "Start the {machine} at {time}", "Turn on {mode} {when}",
        "How many {unit} are left on the {machine}?",
    ),
    "switch": ("turn on", "turn off", "switch on", "switch off", "please turn on", "please turn off"),
    "device": ("{lit}", "{lit}", "{lit}", "all the lights", "the lights"),
    "lit": ("the lamp", "the light", "the fan", "the heater", "the radio", "the television", "the speaker",
            "the air conditioner", "the ceiling light", "the humidifier", "the camera"),
    "room": ("in the kitchen", "in the bedroom", "in the living room", "in the bathroom", "in the garage",
             "in the hallway", "in the garden", "in the dining room", "in the office", "in the attic",
             "in the basement", "in the nursery", "on the terrace", "on the porch", "upstairs", "downstairs"),
    "when": ("now", "tonight", "tomorrow", "this evening", "this afternoon", "tomorrow morning", "on {weekday}",
             "before dinner", "after lunch", "at noon", "at {time}", "in {amount} minutes", "every day", "at midnight"),
    "forecast": ("today", "tonight", "tomorrow", "this evening", "this afternoon", "tomorrow morning", "on {weekday}"),
    "day": ("tomorrow", "on {weekday}", "on {weekday}", "today"),
    "date": ("tomorrow", "{weekday}", "{weekday}", "today"),
    "weekday": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "time": ("{hour} o'clock", "{hour} thirty", "half past {hour}", "quarter past {hour}", "quarter to {hour}",
             "{hour} fifteen", "{hour} twenty", "ten past {hour}", "five to {hour}"),
    "hour": ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    "amount": ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve", "fifteen", "twenty",
               "twenty five", "thirty", "forty", "fifty"),
    "unit": ("minutes", "minutes", "seconds", "hours"),
    "dim": ("dim", "set", "raise", "lower", "turn"),
    "share": ("ten", "twenty", "twenty five", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"),
    "colour": ("red", "green", "blue", "yellow", "orange", "purple", "pink", "white", "warmer", "brighter"),
    "heating": ("heating", "thermostat", "air conditioning"),
    "degrees": ("sixteen", "seventeen", "eighteen", "nineteen", "twenty", "twenty one", "twenty two", "twenty three",
                "twenty four", "twenty five"),
    "oven": ("one hundred", "one hundred and fifty", "one hundred and eighty", "two hundred", "two hundred and twenty"),
    "food": ("the pasta", "the rice", "the eggs", "the bread", "the soup", "the tea", "the pizza", "the chicken",
             "the cake", "the fish"),
    "open": ("open", "close", "please open", "please close"),
    "opening": ("the blinds", "the curtains", "the shutters", "{entrance}", "{entrance}"),
    "lock": ("lock", "unlock"),
    "entrance": ("the window", "the door", "the gate", "the cupboard"),
    "music": ("some jazz", "classical music", "the news", "my favourite songs", "a lullaby", "quiet music", "the radio",
              "a podcast", "an audio book", "the next song", "some rock", "dance music", "the last album"),
    "direction": ("up", "down", "off", "to {share} percent"),
    "item": ("milk", "bread", "eggs", "coffee", "sugar", "cheese", "ham", "butter", "apples", "tomatoes", "rice",
             "olive oil", "orange juice", "yoghurt", "shampoo", "soap", "toothpaste", "onions", "potatoes", "flour"),
    "goods": ("bottles of {drink}", "packs of {dry}", "bags of {dry}"),
    "drink": ("water", "milk", "juice", "vinegar"),
    "dry": ("coffee", "rice", "sugar", "flour", "tea"),
    "task": ("call my mother", "take out the rubbish", "water the plants", "buy bread", "pick up the kids",
             "pay the rent", "take my medicine", "feed the cat", "wash the dog", "hang up the laundry",
             "go to the dentist", "send the package", "change the sheets", "book a table", "charge the car",
             "lock the door", "clean the fridge", "check the mail"),
    "city": ("London", "Dublin", "Boston", "Chicago", "Sydney", "Toronto", "Glasgow", "Houston", "Oxford", "Vancouver"),
    "rain": ("rain", "snow", "be sunny", "be windy", "be cold", "freeze"),
    "person": ("my mother", "my father", "my sister", "my brother", "grandma", "Emma", "Jack", "Oliver", "Zoe",
               "the doctor", "the neighbour", "Mister Brown", "Victor", "Jane", "my boss"),
    "news": ("I am running late", "dinner is ready", "I am on my way", "I am already home", "the door is open",
             "the car is broken", "we need milk", "I can't come", "it's raining", "I will call later"),
    "machine": ("washing machine", "dishwasher", "dryer", "robot vacuum", "sprinkler", "coffee machine"),
    "mode": ("night mode", "the alarm", "holiday mode", "quiet mode", "the sprinkler", "child lock"),
}  # fmt: skip

SPANISH: Grammar = {
    "sentence": (
        "{switch} {device} de {room}", "{switch} {device} de {room}", "{switch} {device} de {room} {when}",
        "{dim} la luz de {room} al {share} por ciento", "Pon la luz de {room} de color {colour}",
        "Pon {heating} de {room} a {degrees} grados", "Pon el horno a {oven} grados",
        "Pon un temporizador de {amount} {unit}", "Pon un temporizador de {amount} minutos para {food}",
        "Despiértame {day} {time}", "Pon una alarma para {day} {time}", "Quita la alarma de {day} {time}",
        "{open} {opening} de {room}", "{open} {opening} de {room} {when}", "{lock} {entrance} de {room}",
        "Pon {music} en {room}", "Pon {music} {when}", "{dim} el volumen en {room}",
        "Añade {item} a la lista de la compra", "Añade {amount} {goods} a la lista",
        "Recuérdame {task} {when}", "Recuérdame {task} {day} {time}", "No te olvides de {task} {when}",
        "¿Sigue encendida {lit_f} de {room}?", "¿Sigue encendido {lit_m} de {room}?",
        "¿Qué temperatura hace en {room}?", "¿Qué tiempo hará en {city} {forecast}?",
        "¿Va a {rain} en {city} {forecast}?", "Llama a {person}", "Llama a {person} {when}",
        "Dile a {person} que {news}", "Pon en marcha {machine} {when}", "Pon en marcha {machine} {time}",
        "Activa {mode} {when}", "¿Cuántos minutos le quedan a {machine}?",
    ),
    "switch": ("enciende", "apaga", "prende", "conecta", "desconecta", "enciende", "apaga"),
    "device": ("{lit_f}", "{lit_m}", "todas las luces", "los enchufes"),
    "lit_f": ("la lámpara", "la luz", "la radio", "la estufa", "la cámara", "la luz del techo"),
    "lit_m": ("el ventilador", "el televisor", "el calefactor", "el altavoz", "el aire acondicionado",
              "el humidificador"),
    "room": ("la cocina", "el dormitorio", "el salón", "el baño", "el garaje", "el pasillo", "el jardín", "el comedor",
             "el despacho", "el desván", "el sótano", "la terraza", "la entrada", "el cuarto de los niños",
             "la habitación pequeña", "el balcón", "la planta baja"),
    "when": ("ahora", "esta noche", "esta tarde", "mañana", "mañana por la mañana", "{weekday}",
             "{weekday} por la tarde", "antes de cenar", "después de comer", "al mediodía", "{time}",
             "dentro de {amount} minutos", "todos los días", "a medianoche", "este fin de semana"),
    "forecast": ("hoy", "esta noche", "esta tarde", "mañana", "mañana por la mañana", "{weekday}",
                 "{weekday} por la tarde", "este fin de semana"),
    "day": ("mañana", "{weekday}", "{weekday}", "pasado mañana", "hoy"),
    "weekday": ("el lunes", "el martes", "el miércoles", "el jueves", "el viernes", "el sábado", "el domingo"),
    "time": ("a las {hour}", "a las {hour} en punto", "a las {hour} y media", "a las {hour} y cuarto",
             "a las {hour} menos cuarto", "a las {hour} y diez", "a las {hour} y veinte", "a las {hour} menos cinco",
             "a la una"),
    "hour": ("dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve", "diez", "once", "doce"),
    "amount": ("dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve", "diez", "doce", "quince", "veinte",
               "veinticinco", "treinta", "cuarenta", "cincuenta"),
    "unit": ("minutos", "minutos", "segundos"),
    "dim": ("sube", "baja"),
    "share": ("diez", "veinte", "veinticinco", "treinta", "cuarenta", "cincuenta", "sesenta", "setenta", "ochenta",
              "noventa"),
    "colour": ("rojo", "verde", "azul", "amarillo", "naranja", "morado", "rosa", "blanco", "turquesa"),
    "heating": ("la calefacción", "el termostato", "el aire acondicionado", "el radiador"),
    "degrees": ("dieciséis", "diecisiete", "dieciocho", "diecinueve", "veinte", "veintiún", "veintidós", "veintitrés",
                "veinticuatro", "veinticinco"),
    "oven": ("cien", "ciento cincuenta", "ciento ochenta", "doscientos", "doscientos veinte"),
    "food": ("la pasta", "el arroz", "los huevos", "el pan", "la sopa", "el té", "la pizza", "el pollo", "la tarta",
             "el pescado", "la siesta"),
    "open": ("abre", "cierra"),
    "opening": ("la persiana", "las cortinas", "las persianas", "la llave del agua", "{entrance}", "{entrance}"),
    "lock": ("bloquea", "desbloquea"),
    "entrance": ("la ventana", "la puerta", "las ventanas", "el armario", "el portón"),
    "music": ("un poco de jazz", "música clásica", "las noticias", "mis canciones favoritas", "una canción de cuna",
              "música tranquila", "la radio", "flamenco", "un cuento", "la canción siguiente", "un poco de rock",
              "salsa", "el documental de los pingüinos", "el último disco"),
    "item": ("leche", "pan", "huevos", "café", "azúcar", "queso", "jamón", "mantequilla", "manzanas", "tomates",
             "arroz", "aceite de oliva", "zumo de naranja", "yogures", "champú", "jabón", "pasta de dientes",
             "cebollas", "patatas", "piñas", "castañas", "harina", "pañales"),
    "goods": ("botellas de {drink}", "paquetes de {dry}", "kilos de {dry}"),
    "drink": ("agua", "leche", "zumo", "vinagre"),
    "dry": ("café", "arroz", "azúcar", "harina", "kiwis"),
    "task": ("llamar a mi madre", "sacar la basura", "regar las plantas", "comprar el pan", "recoger a los niños",
             "pagar el alquiler", "tomar la medicina", "dar de comer al gato", "bañar al perro", "tender la ropa",
             "ir al dentista", "enviar el paquete", "cambiar las sábanas", "reservar una mesa", "cargar el coche",
             "cerrar la puerta con llave", "limpiar el desagüe", "mirar el buzón", "pedir un taxi"),
    "city": ("Madrid", "Sevilla", "Málaga", "Bogotá", "Logroño", "La Coruña", "Quito", "Córdoba", "Cádiz", "Lima",
             "Zaragoza", "Bilbao", "Guadalajara", "Mérida"),
    "rain": ("llover", "nevar", "hacer sol", "hacer viento", "hacer frío", "helar"),
    "person": ("mi madre", "mi padre", "mi hermana", "mi hermano", "la abuela", "Begoña", "Andrés", "José", "Sofía",
               "Iñaki", "Raúl", "la vecina", "el médico", "el señor Muñoz", "mi jefe"),
    "news": ("llego tarde", "la cena está lista", "voy de camino", "ya estoy en casa", "la puerta está abierta",
             "el coche está averiado", "hace falta leche", "no puedo ir", "está lloviendo", "llamaré más tarde"),
    "machine": ("la lavadora", "el lavavajillas", "la secadora", "el robot aspirador", "el riego", "la cafetera"),
    "mode": ("el modo nocturno", "la alarma", "el modo vacaciones", "el modo silencioso", "el riego", "el wifi"),
}  # fmt: skip

ITALIAN: Grammar = {
    "sentence": (
        "{switch} {device} {room}", "{switch} {device} {room}", "{switch} {device} {room} {when}",
        "{dim} la luce {room} al {share} per cento", "Metti la luce {room} di colore {colour}",
        "Metti {heating} {room} a {degrees} gradi", "Metti il forno a {oven} gradi",
        "Imposta un timer di {amount} {unit}", "Imposta un timer di {amount} minuti per {food}",
        "Svegliami {day} {time}", "Metti una sveglia per {day} {time}", "Togli la sveglia di {day} {time}",
        "{open} {opening} {room}", "{open} {opening} {room} {when}", "{lock} {entrance} {room}",
        "Metti {music} {room}", "Metti {music} {when}", "{dim} il volume {room}",
        "Aggiungi {item} alla lista della spesa", "Aggiungi {amount} {goods} alla lista",
        "Ricordami di {task} {when}", "Ricordami di {task} {day} {time}", "Non dimenticare di {task} {when}",
        "È ancora accesa {lit_f} {room}?", "È ancora acceso {lit_m} {room}?",
        "Che temperatura c'è {room}?", "Che tempo farà a {city} {forecast}?",
        "Può {rain} a {city} {forecast}?", "Chiama {person}", "Chiama {person} {when}",
        "Di' a {person} che {news}", "Fai partire {machine} {when}", "Fai partire {machine} {time}",
        "Attiva {mode} {when}", "Quanti minuti mancano {machine_of}?",
    ),
    "switch": ("accendi", "spegni", "attiva", "disattiva", "accendi", "spegni"),
    "device": ("{lit_f}", "{lit_m}", "tutte le luci", "le prese"),
    "lit_f": ("la lampada", "la luce", "la radio", "la stufa", "la telecamera", "la lampadina"),
    "lit_m": ("il ventilatore", "il televisore", "il riscaldamento", "l'altoparlante", "il condizionatore",
              "l'umidificatore"),
    "room": ("in cucina", "in camera da letto", "in salotto", "in bagno", "in garage", "in corridoio", "in giardino",
             "in sala da pranzo", "nello studio", "in soffitta", "in cantina", "in terrazza", "all'ingresso",
             "nella camera dei bambini", "sul balcone", "al piano terra", "al piano di sopra"),
    "when": ("adesso", "stasera", "questo pomeriggio", "domani", "domani mattina", "{weekday}", "{weekday} pomeriggio",
             "prima di cena", "dopo pranzo", "a mezzogiorno", "{time}", "tra {amount} minuti", "tutti i giorni",
             "a mezzanotte", "questo fine settimana"),
    "forecast": ("oggi", "stasera", "questo pomeriggio", "domani", "domani mattina", "{weekday}",
                 "{weekday} pomeriggio", "questo fine settimana"),
    "day": ("domani", "{weekday}", "{weekday}", "dopodomani", "oggi"),
    "weekday": ("lunedì", "martedì", "mercoledì", "giovedì", "venerdì", "sabato", "domenica"),
    "time": ("alle {hour}", "alle {hour} in punto", "alle {hour} e mezza", "alle {hour} e un quarto",
             "alle {hour} meno un quarto", "alle {hour} e dieci", "alle {hour} e venti", "alle {hour} meno cinque",
             "all'una"),
    "hour": ("due", "tre", "quattro", "cinque", "sei", "sette", "otto", "nove", "dieci", "undici", "dodici"),
    "amount": ("due", "tre", "quattro", "cinque", "sei", "sette", "otto", "nove", "dieci", "dodici", "quindici",
               "venti", "venticinque", "trenta", "quaranta", "cinquanta"),
    "unit": ("minuti", "minuti", "secondi"),
    "dim": ("alza", "abbassa"),
    "share": ("dieci", "venti", "venticinque", "trenta", "quaranta", "cinquanta", "sessanta", "settanta", "ottanta",
              "novanta"),
    "colour": ("rosso", "verde", "azzurro", "giallo", "arancione", "viola", "rosa", "bianco", "turchese"),
    "heating": ("il riscaldamento", "il termostato", "il condizionatore", "il termosifone"),
    "degrees": ("sedici", "diciassette", "diciotto", "diciannove", "venti", "ventuno", "ventidue", "ventitré",
                "ventiquattro", "venticinque"),
    "oven": ("cento", "centocinquanta", "centottanta", "duecento", "duecentoventi"),
    "food": ("la pasta", "il riso", "le uova", "il pane", "la zuppa", "il tè", "la pizza", "il pollo", "la torta",
             "il pesce", "il riposino"),
    "open": ("apri", "chiudi"),
    "opening": ("la tapparella", "le tende", "le tapparelle", "l'acqua", "{entrance}", "{entrance}"),
    "lock": ("blocca", "sblocca"),
    "entrance": ("la finestra", "la porta", "le finestre", "l'armadio", "il portone"),
    "music": ("un po' di jazz", "musica classica", "il telegiornale", "le mie canzoni preferite", "una ninnananna",
              "musica tranquilla", "la radio", "l'opera", "una fiaba", "la prossima canzone", "un po' di rock",
              "il documentario sui pinguini", "l'ultimo disco"),
    "item": ("latte", "pane", "uova", "caffè", "zucchero", "formaggio", "prosciutto", "burro", "mele", "pomodori",
             "riso", "olio d'oliva", "succo d'arancia", "yogurt", "shampoo", "sapone", "dentifricio", "cipolle",
             "patate", "ananas", "castagne", "farina", "pannolini"),
    "goods": ("bottiglie di {drink}", "pacchi di {dry}", "chili di {dry}"),
    "drink": ("acqua", "latte", "succo", "aceto"),
    "dry": ("caffè", "riso", "zucchero", "farina", "kiwi"),
    "task": ("chiamare la mamma", "portare fuori la spazzatura", "annaffiare le piante", "comprare il pane",
             "andare a prendere i bambini", "pagare l'affitto", "prendere la medicina", "dare da mangiare al gatto",
             "lavare il cane", "stendere i panni", "andare dal dentista", "spedire il pacco", "cambiare le lenzuola",
             "prenotare un tavolo", "caricare l'auto", "chiudere la porta a chiave", "pulire lo scarico",
             "guardare la posta", "chiamare un taxi"),
    "city": ("Roma", "Milano", "Napoli", "Torino", "Cefalù", "Bologna", "Firenze", "Venezia", "Genova", "Palermo",
             "Forlì", "L'Aquila", "Verona", "Bari"),
    "rain": ("piovere", "nevicare", "esserci il sole", "tirare vento", "fare freddo", "gelare"),
    "person": ("mia madre", "mio padre", "mia sorella", "mio fratello", "la nonna", "Niccolò", "Andrea", "Giuseppe",
               "Sofia", "Zeno", "Raffaele", "la vicina", "il medico", "il signor Bianchi", "il mio capo"),
    "news": ("arrivo tardi", "la cena è pronta", "sono per strada", "sono già a casa", "la porta è aperta",
             "l'auto è rotta", "manca il latte", "non posso venire", "sta piovendo", "chiamerò più tardi"),
    "machine": ("la lavatrice", "la lavastoviglie", "l'asciugatrice", "il robot aspirapolvere", "l'irrigazione"),
    "machine_of": ("alla lavatrice", "alla lavastoviglie", "all'asciugatrice", "alla moka", "al forno"),
    "mode": ("la modalità notte", "l'allarme", "la modalità vacanza", "la modalità silenziosa", "l'irrigazione",
             "il wifi"),
}  # fmt: skip

GRAMMARS: Mapping[str, Grammar] = {"en": ENGLISH, "es": SPANISH, "it": ITALIAN}

_SLOT = re.compile(r"\{(\w+)\}")
_CONTRACTIONS = ((" de el ", " del "), (" a el ", " al "))
_MAX_CHARACTERS = 60
"""Longer sentences are drawn again: at eSpeak's pace this is about 4 s of speech."""
_DRAWS_PER_SENTENCE = 50
"""Draws after which a grammar counts as exhausted; with half its sentences taken, two draws find a new one."""


def draw_sentences(grammar: Grammar, num_sentences: int, random: Random) -> list[str]:
    """Draw `num_sentences` distinct sentences, capitalised and punctuated as Common Voice's are.

    Raises:
        ValueError: the grammar does not hold that many.
    """
    sentences: dict[str, None] = {}
    for _ in range(_DRAWS_PER_SENTENCE * num_sentences):
        if len(sentences) == num_sentences:
            break
        sentence = _finish(_expand(grammar, "sentence", random))
        if len(sentence) <= _MAX_CHARACTERS:
            sentences[sentence] = None
    if len(sentences) < num_sentences:
        raise ValueError(f"the grammar gave {len(sentences)} distinct sentences; {num_sentences} were asked for.")
    return list(sentences)


def _expand(grammar: Grammar, symbol: str, random: Random) -> str:
    return _SLOT.sub(lambda slot: _expand(grammar, slot[1], random), random.choice(grammar[symbol]))


def _finish(words: str) -> str:
    for apart, contracted in _CONTRACTIONS:  # no English sentence holds one
        words = words.replace(apart, contracted)
    first = 1 if words.startswith("¿") else 0
    sentence = words[:first] + words[first].upper() + words[first + 1 :]
    return sentence if sentence.endswith("?") else sentence + "."
