"""Everyday English sentences drawn from a small grammar and a word-frequency list: the text `nano` learns from.

python scripts/everyday_grammar.py --count 20 --seed 1
"""

from __future__ import annotations

import argparse
import functools
import itertools
import random
import re

import wordfreq

LEXICON_SIZE = 11_000  # most frequent English words kept, about Zipf 3.2 and up

PERSON = """man woman boy girl friend neighbour teacher driver doctor nurse farmer baker manager student child mother
father brother sister uncle aunt cousin grandmother grandfather boss worker captain player singer writer painter
lawyer police officer guard guest visitor customer waiter cook pilot sailor soldier king queen president minister
judge reporter editor actor dancer engineer scientist artist builder stranger kid baby daughter son husband wife
partner team family crowd company class group people""".split()
PLACE = """house garden kitchen school office shop market station street road park beach river lake mountain hill
forest village town city country church library museum hotel restaurant hospital airport bridge field farm room
bathroom bedroom garage roof cellar corner bank theatre cinema factory island harbour valley desert coast yard gate
stairs hall court square tower castle prison border camp""".split()
THING = """book table chair door window letter phone computer car bus train bicycle boat plane bag box bottle cup glass
plate knife fork spoon pan oven fridge lamp clock watch key coat shirt shoe hat dress ring picture map newspaper
magazine ticket card paper pen pencil desk bed blanket pillow mirror brush soap towel umbrella camera radio television
screen machine engine wheel tool hammer nail rope ladder bucket basket candle stone rock stick leaf flower tree grass
seed plant root branch ball game song story film play dance prize gift toy doll piano guitar drum bell flag coin note
bill price plan list report project answer question problem idea dream secret mistake lesson test""".split()
FOOD = """bread butter cheese milk tea coffee juice water soup rice pasta meat chicken beef fish egg salad potato tomato
onion carrot bean apple orange banana lemon cake biscuit chocolate sugar salt pepper honey jam breakfast lunch dinner
sandwich pizza wine beer""".split()
ANIMAL = "dog cat horse cow pig sheep goat duck hen bird mouse rat rabbit fox bear wolf lion tiger monkey snake frog bee spider".split()
ADJECTIVE = """old young new small big large little long short tall high low red blue green black white yellow brown grey
warm cold hot cool wet dry clean dirty heavy light dark bright quick slow early late good bad great nice kind happy sad
angry tired hungry thirsty busy quiet loud soft hard easy difficult simple strong weak rich poor cheap expensive full
empty open closed broken lovely strange funny famous local modern ancient careful clever stupid brave lucky safe
dangerous important useful different similar special common rare fresh sweet bitter sharp smooth rough thick thin wide
narrow deep round flat wooden golden wild gentle serious honest proud nervous lonely""".split()
ADVERB = """quickly slowly carefully quietly loudly suddenly finally always never often sometimes usually again today
yesterday tomorrow soon already together alone outside inside upstairs downstairs everywhere somewhere early late
perhaps certainly nearly almost really hardly simply gladly badly well""".split()
TIME = """in the morning|in the afternoon|in the evening|at night|last week|next week|every day|on monday|on tuesday|
on wednesday|on thursday|on friday|on saturday|on sunday|last year|this year|next month|after lunch|before dinner|
at noon|at midnight|all day|for an hour|for two weeks|in winter|in summer|in spring|in autumn|since january|
in february|in march|in april|until may|in june|in july|in august|before september|in october|in november|
last december|a few minutes ago|a long time ago|right now|at the weekend""".replace("\n", "").split("|")
NAME = """john mary david sarah peter anna james lucy paul emma tom kate george helen robert alice henry jane jack rose
william laura michael susan charles maria daniel julia thomas martha london paris america england""".split()
TRANSITIVE = """open/opened close/closed find/found lose/lost buy/bought sell/sold bring/brought carry/carried take/took
give/gave see/saw hear/heard watch/watched want/wanted need/needed like/liked love/loved hate/hated clean/cleaned
wash/washed fix/fixed break/broke build/built paint/painted make/made cook/cooked eat/ate drink/drank read/read
write/wrote send/sent show/showed hide/hid keep/kept hold/held drop/dropped pick/picked push/pushed pull/pulled
move/moved turn/turned cut/cut throw/threw catch/caught use/used choose/chose forget/forgot remember/remembered
know/knew understand/understood follow/followed lead/led help/helped meet/met visit/visited call/called ask/asked
tell/told teach/taught pay/paid cost/cost win/won hit/hit touch/touched check/checked change/changed share/shared
save/saved spend/spent leave/left reach/reached cross/crossed cover/covered fill/filled finish/finished start/started
stop/stopped order/ordered offer/offered accept/accepted refuse/refused borrow/borrowed lend/lent""".split()
INTRANSITIVE = """walk/walked run/ran sleep/slept wait/waited laugh/laughed cry/cried smile/smiled sing/sang dance/danced
swim/swam fly/flew fall/fell sit/sat stand/stood work/worked play/played stay/stayed arrive/arrived return/returned
travel/travelled live/lived talk/talked speak/spoke listen/listened think/thought dream/dreamed shout/shouted
climb/climbed jump/jumped rest/rested grow/grew rise/rose shine/shone begin/began end/ended disappear/disappeared""".split()
PREPOSITION = """in on under behind near beside above below inside outside across through around past over beyond against
towards along from to into by between without with""".split()
DIGIT = "zero one two three four five six seven eight nine".split()
TEEN = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
ORDINAL = """first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth
fifteenth sixteenth seventeenth eighteenth nineteenth twentieth""".split()
MONTH = "january february march april may june july august september october november december".split()


@functools.cache
def lexicon() -> tuple[tuple[str, ...], tuple[float, ...]]:
    """The frequent words and their cumulative weights (square root of frequency, so rare words are heard too)."""
    words = [w for w in wordfreq.top_n_list("en", LEXICON_SIZE) if re.fullmatch(r"[a-z]{2,}('[a-z]+)?", w)]
    words = [w for w in words if wordfreq.zipf_frequency(w, "en") > 0 and re.search(r"[aeiouy]", w)]
    total, cumulative = 0.0, []
    for word in words:
        total += wordfreq.word_frequency(word, "en") ** 0.5
        cumulative.append(total)
    return tuple(words), tuple(cumulative)


@functools.cache
def _frequencies() -> dict[float, list[float]]:
    """Cumulative weights of the lexicon, by the power of frequency they use."""
    return {
        power: list(itertools.accumulate(wordfreq.word_frequency(w, "en") ** power for w in lexicon()[0]))
        for power in (0.35, 0.5, 0.65, 0.8)
    }


@functools.cache
def _by_shape() -> dict[str, tuple[list[str], list[float]]]:
    """Frequent words sorted by what their ending suggests, for slots where that sounds more like English."""
    words = lexicon()[0]
    shapes: dict[str, list[str]] = {"ly": [], "ing": [], "ed": [], "s": [], "other": []}
    for word in words[150:]:
        ending = next((e for e in ("ly", "ing", "ed") if word.endswith(e) and len(word) > len(e) + 2), "")
        if not ending and word.endswith("s") and not word.endswith(("ss", "us", "is", "'s")) and len(word) > 4:
            ending = "s"
        shapes[ending or "other"].append(word)
    return {
        shape: (members, list(itertools.accumulate(wordfreq.word_frequency(w, "en") ** 0.5 for w in members)))
        for shape, members in shapes.items()
    }


class Grammar:
    """Draws sentences. `any_share` is how often a content word comes from the frequency list, not a category."""

    def __init__(self, rng: random.Random, *, any_share: float = 0.55) -> None:
        self.rng = rng
        self.any_share = any_share

    def word(self) -> str:
        words, cumulative = lexicon()
        return self.rng.choices(words, cum_weights=cumulative)[0]

    def shaped(self, shape: str) -> str:
        words, cumulative = _by_shape()[shape]
        return self.rng.choices(words, cum_weights=cumulative)[0]

    def _content(self, category: list[str], shape: str) -> str:
        if self.rng.random() < self.any_share:
            return self.shaped(shape) if self.rng.random() < 0.8 else self.word()
        return self.rng.choice(category)

    def noun(self) -> str:
        return self._content(self.rng.choice([PERSON, PLACE, THING, THING, FOOD, ANIMAL]), "other")

    def plural(self) -> str:
        if self.rng.random() < 0.5:
            return self.shaped("s")
        noun = self.rng.choice(self.rng.choice([THING, ANIMAL, PLACE]))
        if noun.endswith(("s", "x", "ch", "sh")):
            return noun + "es"
        return noun[:-1] + "ies" if re.search(r"[^aeiou]y$", noun) else noun + "s"

    def adjective(self) -> str:
        return self._content(ADJECTIVE, "other")

    def adverb(self) -> str:
        return self._content(ADVERB, "ly")

    def verb(self, table: list[str], form: str) -> str:
        base, past = self.rng.choice(table).split("/")
        if form == "past":
            return past if self.rng.random() > self.any_share / 2 else self.shaped("ed")
        if form == "ing":
            if self.rng.random() < self.any_share / 2:
                return self.shaped("ing")
            if base.endswith("e") and not base.endswith("ee"):
                return base[:-1] + "ing"
            doubled = re.search(r"[^aeiou][aeiou][bdgmnprt]$", base) and len(base) <= 4
            return base + base[-1] + "ing" if doubled else base + "ing"
        if form == "s":
            return (
                base + ("es" if base.endswith(("s", "sh", "ch", "x", "o")) else "s")
                if base[-1] != "y"
                else (base[:-1] + "ies" if base[-2] not in "aeiou" else base + "s")
            )
        return base

    def number(self) -> str:
        kind = self.rng.random()
        if kind < 0.4:
            return self.rng.choice(DIGIT[1:] + TEEN)
        tens = self.rng.choice(TENS) + (" " + self.rng.choice(DIGIT[1:]) if self.rng.random() < 0.6 else "")
        if kind < 0.75:
            return tens
        if kind < 0.9:
            return self.rng.choice(DIGIT[1:]) + " hundred" + (" and " + tens if self.rng.random() < 0.5 else "")
        return self.rng.choice(DIGIT[1:]) + " thousand" + (" " + self.number() if self.rng.random() < 0.3 else "")

    def noun_phrase(self) -> str:
        kind = self.rng.random()
        determiner = self.rng.choice(
            "the the the the a my your his her our their this that some every no another".split()
        )
        if kind < 0.12:
            return self.rng.choice("i you he she it we they someone everyone nobody".split())
        if kind < 0.2:
            return self.rng.choice(NAME)
        if kind < 0.35:
            some = self.rng.choice("the some many these those my our all most few several two three".split())
            return f"{some} {self.adjective() + ' ' if self.rng.random() < 0.4 else ''}{self.plural()}"
        head = self.adjective() + " " + self.noun() if self.rng.random() < 0.4 else self.noun()
        if determiner == "a" and head[0] in "aeiou":
            determiner = "an"
        return f"{determiner} {head}"

    def place_phrase(self) -> str:
        return f"{self.rng.choice(PREPOSITION)} {self.rng.choice(['the', 'the', 'a', 'my', 'our'])} {self._content(PLACE, 'other')}"

    def verb_phrase(self) -> str:
        tense = self.rng.choice(["past", "past", "past", "will", "ing", "modal", "perfect", "be"])
        if tense == "be":
            return (
                f"{self.rng.choice(['is', 'was', 'were', 'are', 'will be', 'seems', 'became', 'looks'])} "
                + (
                    f"{self.rng.choice(['very', 'too', 'so', 'not', 'quite', 'really'])} "
                    if self.rng.random() < 0.5
                    else ""
                )
                + self.adjective()
            )
        table, transitive = (TRANSITIVE, True) if self.rng.random() < 0.65 else (INTRANSITIVE, False)
        if tense == "past":
            verb = self.verb(table, "past")
        elif tense == "ing":
            verb = (
                self.rng.choice("is was were are am has been have been".split(" ")[:5]) + " " + self.verb(table, "ing")
            )
        elif tense == "perfect":
            verb = self.rng.choice(["has", "have", "had"]) + " " + self.verb(table, "past")
        elif tense == "modal":
            verb = (
                self.rng.choice(
                    "can could should would must might may don't didn't can't won't couldn't wants\tto had\tto tried\tto used\tto".split(
                        " "
                    )
                ).replace("\t", " ")
                + " "
                + self.verb(table, "base")
            )
        else:
            verb = "will " + self.verb(table, "base")
        return f"{verb} {self.noun_phrase()}" if transitive else verb

    def clause(self) -> str:
        parts = [self.noun_phrase(), self.verb_phrase()]
        extra = self.rng.random()
        if extra < 0.35:
            parts.append(self.place_phrase())
        elif extra < 0.55:
            parts.append(self.rng.choice(TIME).strip())
        elif extra < 0.75:
            parts.append(self.adverb())
        return " ".join(parts)

    def spelled(self) -> str:
        """Letters and digits read out, as people do for names, codes and telephone numbers."""
        kind = self.rng.random()
        if kind < 0.35:
            return " ".join(self.rng.choice(lexicon()[0][:6000]).replace("'", "")[:8])
        if kind < 0.6:
            return " ".join(self.rng.choice(DIGIT) for _ in range(self.rng.randint(3, 7)))
        if kind < 0.8:
            letters = " ".join(self.rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(self.rng.randint(2, 5)))
            return letters + " " + " ".join(self.rng.choice(DIGIT) for _ in range(self.rng.randint(1, 4)))
        return f"{self.rng.choice(MONTH)} {self.rng.choice(ORDINAL)} nineteen {self.rng.choice(TENS)} {self.rng.choice(DIGIT[1:])}"

    def words(self) -> str:
        """Words that do not make sense together, from mostly common to fairly rare ones."""
        words, frequencies = lexicon()[0], _frequencies()
        exponent = self.rng.choice([0.35, 0.5, 0.65, 0.8])
        return " ".join(self.rng.choices(words, cum_weights=frequencies[exponent], k=self.rng.randint(3, 9)))

    def sentence(self) -> str:
        """One lower-case sentence of 2 to about 14 words without punctuation."""
        kind = self.rng.random()
        choose = self.rng.choice
        if kind < 0.40:
            return self.clause()
        if kind < 0.50:
            return f"{self.clause()} {choose(['and', 'but', 'because', 'when', 'while', 'so', 'if', 'although', 'until'])} {self.clause()}"
        if kind < 0.54:
            return f"{choose(['do', 'did', 'can', 'could', 'will', 'would', 'should'])} {choose(['you', 'we', 'they', 'i', 'he', 'she'])} {self.verb(TRANSITIVE, 'base')} {self.noun_phrase()}"
        if kind < 0.58:
            return f"{choose(['where', 'when', 'why', 'how'])} {choose(['is', 'was', 'are', 'did', 'does'])} {self.noun_phrase()} {self.adjective() if self.rng.random() < 0.5 else self.verb(INTRANSITIVE, 'base')}"
        if kind < 0.62:
            return f"{choose(['please', 'never', 'always', 'let us', 'you should', 'try to', 'remember to'])} {self.verb(TRANSITIVE, 'base')} {self.noun_phrase()} {self.place_phrase()}"
        if kind < 0.66:
            return f"{choose(['there is', 'there was', 'there are', 'this is', 'here is', 'it was', 'that is'])} {self.noun_phrase()} {self.place_phrase()}"
        if kind < 0.70:
            return f"{choose(['i think', 'she said', 'he thought', 'they know', 'we hope', 'people say', 'i heard'])} that {self.clause()}"
        if kind < 0.74:
            return f"{self.noun_phrase()} {self.verb(TRANSITIVE, 'past')} {self.number()} {self.plural()}"
        if kind < 0.78:
            return f"{self.verb(TRANSITIVE, 'ing')} {self.noun_phrase()} is {choose(['more', 'less', 'as', 'not'])} {self.adjective()} than {self.noun_phrase()}"
        if kind < 0.84:
            return f"{self.noun_phrase()} of {self.noun_phrase()} {self.verb_phrase()}"
        if kind < 0.91:
            return self.spelled()
        return " ".join(self.word() for _ in range(self.rng.randint(3, 9)))


def sentences(count: int, *, seed: int, avoid: frozenset[str] = frozenset(), words_share: float = 0.0) -> list[str]:
    """`count` different sentences in which no word (or run of words) of `avoid` occurs.

    A `words_share` of them are words drawn by frequency: nothing but listening helps with those.
    """
    grammar, kept = Grammar(random.Random(f"everyday:{seed}")), dict[str, None]()
    while len(kept) < count:
        drawn = grammar.words() if words_share and grammar.rng.random() < words_share else grammar.sentence()
        sentence = " ".join(drawn.split())
        words = sentence.split()
        spans = {" ".join(words[i : i + n]) for n in range(1, 11) for i in range(len(words))}
        if len(words) <= 18 and not spans & avoid:
            kept[sentence] = None
    return list(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print("\n".join(sentences(options.count, seed=options.seed)))


if __name__ == "__main__":
    main()
