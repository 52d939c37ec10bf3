"""Languages: their letters, and how they write numbers, symbols and abbreviations; more can be added by a file."""

import difflib
import hashlib
import json
import re
import unicodedata
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import get_origin, get_type_hints

from num2words import num2words

from files.mapping import load_yaml


class LanguageError(ValueError):
    """An unknown language, or one that contradicts itself."""


@dataclass(frozen=True, kw_only=True)
class Language:
    """How a language is written in normalised transcripts, and how its digits and symbols are read out.

    `code` and `letters` are enough. All values are plain, so that it can be sent to workers and written as YAML.

    Raises:
        LanguageError: a field outside its limits.
    """

    code: str
    """As in Common Voice: es, pt, rm-sursilv."""
    letters: str
    """Lower-case letters in label order, without space and apostrophe."""
    has_apostrophe: bool = False
    """Whether words contain the apostrophe, which makes it a label."""
    has_spaces: bool = True
    """Whether spaces separate words; without them a study minimises errors in letters."""
    num2words: str = ""
    """num2words' code of the language for reading out numbers. If empty, clips with digits are left out."""
    decimal_mark: str = "."
    """`.` or `,`; the other one groups thousands."""
    decimal_words: dict[str, str] = field(default_factory=dict)
    """How `.` and `,` are read before decimals; with `num2words`, at least the decimal mark needs a word."""
    group_marks: str = ""
    """What groups thousands, if not only the other mark."""
    symbols: dict[str, str] = field(default_factory=dict)
    """Symbols and how they are read; of two with the same start, the longer one comes first. Others are dropped."""
    currencies: str = "$ € £"
    """Symbols that are written before a number and read after it, separated by spaces."""
    ordinal_marks: str = ""
    """Marks that make the number before them an ordinal, separated by spaces."""
    feminine_marks: str = ""
    """The ordinal marks that make it feminine."""
    feminine: dict[str, str] = field(default_factory=dict)
    """Regular expressions and their replacements, which turn num2words' ordinal into a feminine one."""
    inflected: str = ""
    """A regular expression for number words that change with the gender of the counted noun, or before a noun. Where
    that is not known, the clip is left out."""
    feminine_before: str = ""
    """A regular expression for the words before a number that make it feminine."""
    named_by: str = ""
    """Words after which a number is a name (page 21), separated by spaces."""
    year_words: str = ""
    """Words before a year, separated by spaces."""
    months: str = ""
    """Names of the months, separated by spaces."""
    abbreviations: str = ""
    """Words written with a full stop, here without it, separated by spaces; they are left as they are and counted."""

    def __post_init__(self) -> None:
        self._check_types()
        if not re.fullmatch(r"[A-Za-z]{2,3}(-[A-Za-z0-9]+)*", self.code):
            raise LanguageError(f"code is {self.code!r}; it must be one such as es or rm-sursilv.")
        letters = self.letters
        as_written = "".join(dict.fromkeys(unicodedata.normalize("NFC", letters.lower())))
        # Sorted, for NFC puts marks that stand side by side, as in an alphabet of Thai, into another order.
        if not letters or sorted(letters) != sorted(unicodedata.normalize("NFC", letters).lower()):
            raise LanguageError(f"letters is {letters!r}; it must hold lower-case letters in Unicode NFC"
                                + (f": {as_written!r}." if letters else "."))
        if wrong := [c for n, c in enumerate(letters) if c.isspace() or c.isdigit() or c == "'" or c in letters[:n]]:
            raise LanguageError(f"letters holds {wrong[0]!r}; it must hold every letter once, and no space, digit or "
                                "apostrophe (has_apostrophe says whether there is one).")
        if self.decimal_mark not in (".", ","):
            raise LanguageError(f"decimal_mark is {self.decimal_mark!r}; it must be '.' or ','.")
        for name in ("decimal_words", "symbols", "feminine"):
            for key, value in getattr(self, name).items():
                if not (isinstance(key, str) and key and isinstance(value, str)):
                    raise LanguageError(f"{name} holds {key!r}: {value!r}; it must map text to text.")
        for name, pattern in (("inflected", self.inflected), ("feminine_before", self.feminine_before),
                              *(("feminine", pattern) for pattern in self.feminine)):
            try:
                re.compile(pattern).sub(self.feminine.get(pattern, "") if name == "feminine" else "", "")
            except (re.error, IndexError) as error:
                raise LanguageError(f"{name} is {pattern!r}; it must be a regular expression ({error}).") from None
        self._check_numbers()

    def _check_types(self) -> None:
        for name, hint in get_type_hints(Language).items():
            value, kind = getattr(self, name), get_origin(hint) or hint
            if not isinstance(value, kind):
                quotes = " Put it in quotes." if kind is str and not isinstance(value, list | dict) else ""
                said = {str: "text", bool: "true or false", dict: "a mapping"}[kind]
                raise LanguageError(f"{name} is {value!r}; it must be {said}.{quotes}")

    def _check_numbers(self) -> None:
        if not self.num2words:
            return
        if self.decimal_mark not in self.decimal_words:
            raise LanguageError(f"decimal_words has no word for {self.decimal_mark!r}, the decimal mark; num2words = "
                                f"{self.num2words!r} needs one. Add it, or leave num2words out.")
        try:
            words = "".join(str(num2words(number, lang=self.num2words)) for number in (*range(101), 1000))
        except NotImplementedError:
            raise LanguageError(f"num2words is {self.num2words!r}, which num2words does not know. Leave it out: clips "
                                "with digits are then left out.") from None
        if unknown := "".join(sorted({c for c in words.lower() if c.isalpha() and c not in self.letters})):
            raise LanguageError(f"letters lacks {unknown!r}, which numbers in num2words' {self.num2words!r} are "
                                "written with. Add them, or leave num2words out: clips with digits are then left out.")

    def __hash__(self) -> int:
        return hash(self.code)

    def __repr__(self) -> str:
        return f"{self.code} (key {self.key[:12]})"

    @property
    def alphabet(self) -> str:
        """Space, letters, apostrophe: the order of NeMo's English labels."""
        return " " + self.letters + ("'" if self.has_apostrophe else "")

    @property
    def key(self) -> str:
        """A SHA-256 of all fields that text is normalised by, in hexadecimal."""
        values = {name: value for name, value in asdict(self).items() if name != "has_spaces"}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


_LATIN = "abcdefghijklmnopqrstuvwxyz"
_MARKS = "º ª .º .ª st nd rd th"
_DOT_OR_SPACE = ". \u00a0\u202f"
"""Thousands are grouped by a full stop, a space, or a non-breaking or narrow one."""

# "$" may be read as dollars or as pesos.
SPANISH = Language(
    code="es", letters=_LATIN + "áéíñóúü", num2words="es", decimal_mark=",",
    decimal_words={",": "coma", ".": "punto"}, group_marks=_DOT_OR_SPACE,
    currencies="€ £", ordinal_marks=_MARKS + " er .er ero era ro do to mo vo no ra da ta ma va na",
    feminine_marks="ª .ª era ra da ta ma va na", feminine={r"o\b": "a"},
    symbols={"nº": "número", "n°": "número", "%": "por ciento", "&": "y", "€": "euros", "£": "libras",
             "+": "más", "@": "arroba", "°": "grados"},
    inflected=r"\b(?:\w*uno?|veintiún|\w*ientos)\b(?! mill)|(?:primero|tercero)$", feminine_before=r"la|\w*as",
    named_by="marque marca marcar pulse pulsa presione oprima tecla opción opcion número numero extensión extension "
             "página capítulo artículo versículo salmo año canal línea habitación apartado anexo nivel ruta",
    year_words="en desde hasta año del",
    months="enero febrero marzo abril mayo junio julio agosto septiembre setiembre octubre noviembre diciembre",
    abbreviations="sr sra sres srta dr dra dña ud uds vd vds ee uu etc pág págs núm avda ej prof gral cía lic ing mons "
                  "fdo dpto admón aprox")
ITALIAN = Language(
    code="it", letters=_LATIN + "àèéìòù", has_apostrophe=True, num2words="it", decimal_mark=",",
    decimal_words={",": "virgola", ".": "punto"}, group_marks=_DOT_OR_SPACE, ordinal_marks=_MARKS,
    feminine_marks="ª .ª", feminine={r"o\b": "a"},
    symbols={"nº": "numero", "n°": "numero", "%": "per cento", "&": "e", "€": "euro", "$": "dollari", "£": "sterline",
             "+": "più", "@": "chiocciola", "°": "gradi"},
    inflected=r"uno\b", feminine_before=r"la|una|all",
    named_by="numero pagina capitolo articolo versetto salmo anno canale linea stanza opzione tasto premi premere "
             "digita",
    year_words="nel dal al del anno",
    months="gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
    abbreviations="sig sigg dott dottssa prof profssa ecc pag pagg avv ing arch geom rag cfr ss mons gen col")
ENGLISH = Language(
    code="en", letters=_LATIN, has_apostrophe=True, num2words="en", decimal_words={",": "point", ".": "point"},
    ordinal_marks=_MARKS + " s",
    symbols={"%": "percent", "&": "and", "€": "euros", "$": "dollars", "£": "pounds", "+": "plus", "@": "at",
             "°": "degrees"},
    year_words="in since by until till during circa year spring summer autumn fall winter",
    months="january february march april may june july august september october november december",
    abbreviations="mr mrs ms dr prof st jr sr etc vs ltd inc co corp dept gen lt capt sgt col rev hon gov sen rep")
PORTUGUESE = Language(  # numbers of Brazil: dezesseis, not dezasseis
    code="pt", letters=_LATIN + "àáâãçéêíóôõú", has_apostrophe=True, num2words="pt_BR", decimal_mark=",",
    decimal_words={",": "vírgula", ".": "ponto"}, group_marks=_DOT_OR_SPACE, currencies="r$ $ € £",
    ordinal_marks="º ª .º .ª", feminine_marks="ª .ª", feminine={r"o\b": "a"},
    symbols={"r$": "reais", "nº": "número", "n°": "número", "%": "por cento", "&": "e", "€": "euros", "$": "dólares",
             "£": "libras", "+": "mais", "@": "arroba", "°": "graus"},
    inflected=r"\b(?:um|dois|\w+entos)\b(?! milh)", feminine_before=r"a|à|da|na|pela|\w*[aà]s",
    named_by="número página capítulo artigo versículo salmo ano canal linha opção tecla disque pressione digite",
    year_words="em desde até ano",
    months="janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
    abbreviations="sr sra srs sras srta dr dra drs etc pág págs núm av profª prof profa exmo exma ltda cia eua ex fl")
FRENCH = Language(  # œ and æ are ligatures that many writers spell out: they are always spelled out
    code="fr", letters=_LATIN + "àâçèéêëîïôùûü", has_apostrophe=True, num2words="fr", decimal_mark=",",
    decimal_words={",": "virgule", ".": "point"}, group_marks=_DOT_OR_SPACE,
    ordinal_marks="er re ère e eme ème ième nd nde de ᵉʳ ᵉ", feminine_marks="re ère nde de",
    feminine={r"premier$": "première", r"second$": "seconde"},
    symbols={"n°": "numéro", "nº": "numéro", "%": "pour cent", "&": "et", "€": "euros", "$": "dollars",
             "£": "livres", "+": "plus", "@": "arobase", "°": "degrés"},
    inflected=r"\bun\b(?! milli)", feminine_before=r"la|les|une|des|ces|ses|mes|ma|sa|\w*elles",
    named_by="numéro page chapitre article verset psaume année an canal chaîne ligne chambre option touche tapez",
    year_words="en depuis année avant après dès",
    months="janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    abbreviations="m mm mme mmes mlle mlles dr pr me mgr etc cf env apr av bd st ste ex éd vol chap hab tél")
CATALAN = Language(
    code="ca", letters=_LATIN + "àçèéíïòóúü·", has_apostrophe=True, num2words="ca", decimal_mark=",",
    decimal_words={",": "coma", ".": "punt"}, group_marks=_DOT_OR_SPACE,
    ordinal_marks="r n t è é a º ª", feminine_marks="a ª", feminine={r"è$": "ena", r"(?<=[rnt])$": "a"},
    symbols={"nº": "número", "n°": "número", "%": "per cent", "&": "i", "€": "euros", "$": "dòlars", "£": "lliures",
             "+": "més", "@": "arrova", "°": "graus"},
    inflected=r"\b(?:un|dos|\w*cents)\b(?! mili)", feminine_before=r"la|\w*es",
    named_by="número pàgina capítol article versicle salm any canal línia opció tecla premeu marqueu",
    year_words="el any des",
    months="gener febrer març abril maig juny juliol agost setembre octubre novembre desembre",
    abbreviations="sr sra srta dr dra mn etc pàg pàgs núm núms av avda pl ctra eua prof cia tel ex aprox")

LANGUAGES = {language.code: language for language in (SPANISH, ITALIAN, ENGLISH, PORTUGUESE, FRENCH, CATALAN)}

NAMES = {"es": "spanish español espanol castellano castilian spa esp", "it": "italian italiano ita",
         "en": "english inglés eng", "pt": "portuguese português portugues brazilian por",
         "fr": "french français francais fra fre", "ca": "catalan català catala valencian cat"}
"""What people call the languages, separated by spaces."""


def language(name: str | Path) -> Language:
    """Look a language up by its code, or read the YAML file that describes one.

    Raises:
        LanguageError: there is no such language, and the message lists the known ones; or a field of the file is wrong.
    """
    if not isinstance(name, str | Path):
        raise LanguageError(f"language is {name!r}; it must be a code such as es, or the path of a YAML file.")
    if Path(name).suffix.lower() in (".yaml", ".yml"):
        return _read(Path(name).expanduser())
    if name not in LANGUAGES:
        meant = f"; the nearest is {near}" if (near := _meant(str(name))) else ""
        raise LanguageError(f"language is {str(name)!r}; it must be one of {', '.join(sorted(LANGUAGES))}{meant}. "
                            "Choose one, or describe yours in a YAML file and give its path: FILE.yaml.")
    return LANGUAGES[str(name)]


def _meant(name: str) -> str | None:
    """The code of the language that the user may have meant by its name or by a code with a country."""
    plain = name.lower()
    if (base := re.split("[-_]", plain)[0]) in LANGUAGES:
        return base
    codes = {word: code for code, words in NAMES.items() for word in words.split()}
    near = difflib.get_close_matches(plain, codes, n=1, cutoff=0.75)
    return codes[near[0]] if near else None


def _read(path: Path) -> Language:
    values = load_yaml(path, "language", LanguageError)
    known = get_type_hints(Language)
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.7)
            meant = f"the nearest is {near[0]}" if near else f"there are {', '.join(known)}"
            raise LanguageError(f"{path}: {name}: there is no such field; {meant}.")
    if missing := [name for name in ("code", "letters") if name not in values]:
        raise LanguageError(f"{path}: {missing[0]} is missing; it has no default.")
    try:
        return Language(**values)
    except LanguageError as error:
        raise LanguageError(f"{path}: {error}") from None
