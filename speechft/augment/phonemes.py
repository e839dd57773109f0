"""English phonemes as others say them: through the sounds of another language, or with some replaced at random.

Phonemes are eSpeak NG's names ("t", "I", "oU"), a stress mark before a vowel ("'I"). The sounds of a first language
follow what its learners are known to do (Swan and Smith 2001): a sound it lacks becomes its nearest. This only
approximates an accent; that random substitution recovers most of the gain of targeted ones is reported in
arXiv 2604.27273, and that synthetic accents must be mixed with real speech in arXiv 2303.00802.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Words = list[list[str]]

STRESS = "',%="
VOWELS = tuple("a E I i: 0 O: U u: V 3: @ eI aI OI oU aU".split())
CONSONANTS = tuple("p b t d k g f v T D s z S Z tS dZ h m n N l r w j".split())

# English vowels in the five vowels (and schwa) that every one of eSpeak's languages has; r is said where it is written.
FIVE = dict(
    pair.split("=")
    for pair in """
    a=a aa=a a#=@ A:=a A@=a|r 0=o O=o O:=o O2=o O@=o|r o@=o|r V=a @=@ @2=@ @5=@ @L=@|l @r=@|r 3=@|r 3:=e|r E=e e=e e#=e
    e@=e|r I=i I2=i I#=i I2#=i i=i i:=i i@=i|@ i@3=i|r U=u U@=u|r u=u u:=u eI=e|i aI=a|i OI=o|i oU=o|u oU#=o|u aU=a|u
    aI2=a|i aI@=a|i|@ aI3=a|i|@|r aU@=a|u|@ IR=i|r VR=a|r @-=@ t#=t t2=t d#=d z#=z l^=l n-=n
    """.split()
)
SPELT_CONSONANTS = ("t#", "t2", "d#", "z#", "l^", "n-")  # among them
# What else a language's speakers change; "h=" is not said at all.
LANGUAGES = {
    language: dict(pair.split("=") for pair in changes.split())
    for language, changes in {
        "ar": "p=b v=f N=n tS=S e=i o=u",
        "cmn": "T=s D=d v=w z=s Z=S dZ=tS b=p",
        "de": "T=s D=z w=v dZ=tS I=I E=E U=U 0=O O:=o: i:=i: u:=u: eI=e: oU=o: aI=aI aU=aU a=E",
        "es": "T=t D=d v=b z=s S=tS Z=j dZ=j h=x r=R",
        "fr": "T=s D=z h= tS=S dZ=Z E=E",
        "hi": "T=t[ D=d[ w=v t=t. d=d. t#=t. I=I U=U i:=i: u:=u: eI=e: oU=o:",
        "it": "T=t D=d h= N=n r=R",
        "ja": "l=r T=s D=z v=b N=n",
        "ru": "T=s D=z w=v h=x N=n r=R",
    }.items()
}


def in_language(words: Words, language: str) -> Words:
    """English words in the sounds of another language, one of `LANGUAGES`; sounds nobody knows are left out."""
    changes = LANGUAGES[language]
    found = []
    for word in words:
        said: list[str] = []
        for phoneme in word:
            mark, sound = split_stress(phoneme)
            spelt = changes.get(sound) if sound in changes else FIVE.get(sound)
            if spelt is None and sound in CONSONANTS:
                spelt = sound
            for number, part in enumerate(spelt.split("|") if spelt else []):
                said.append(mark + part if number == 0 else part)
        if said:
            found.append(said)
    return found


def substitute(words: Words, *, rate: float, rng: np.random.Generator) -> tuple[Words, int]:
    """Replace each phoneme with probability `rate` by another vowel, or consonant, at random; stress stays.

    Returns:
        the words, and how many phonemes were replaced.
    """
    replaced = 0
    found = []
    for word in words:
        said = []
        for phoneme in word:
            mark, sound = split_stress(phoneme)
            kind = VOWELS if sound in FIVE and sound not in SPELT_CONSONANTS else CONSONANTS
            if rng.random() < rate:
                others = [other for other in kind if other != sound]
                sound, replaced = others[int(rng.integers(len(others)))], replaced + 1
            said.append(mark + sound)
        found.append(said)
    return found, replaced


def split_stress(phoneme: str) -> tuple[str, str]:
    """The stress mark, which may be "", and the sound."""
    sound = phoneme.lstrip(STRESS)
    return phoneme[: len(phoneme) - len(sound)], sound


def written(words: Sequence[Sequence[str]]) -> str:
    """Phonemes as eSpeak reads them between brackets: [[h|@|l|'oU w|'3:|l|d]]."""
    return "[[" + " ".join("|".join(word) for word in words) + "]]"
