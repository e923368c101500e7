"""Stories of the generated world: twelve plots with cause and effect, and the one-line summary that each determines."""

from __future__ import annotations

from typing import NamedTuple

from pippin.data.records import Split
from pippin.data.world_words import (
    ANIMALS,
    BOYS,
    COLORS,
    GIRLS,
    ITEMS,
    NAMES,
    PLACES,
    Draw,
    article,
    heldout,
)

KIN = ("mother", "father", "grandma", "grandpa", "aunt", "uncle")
TREATS = ("cake", "pie", "pancake", "sandwich", "bun", "pizza")
CLIMBERS = ("cat", "hen", "frog", "goat", "mouse")
HIGH = (("in a tree", "ladder"), ("on the roof", "ladder"))
LOW = (("in a hole", "rope"), ("in the mud", "rope"))
GUESTS = ("cat", "dog", "fox", "hen", "owl", "frog", "duck", "goat", "mouse", "rabbit")
NOISES = (
    ("under the bed", "looking for food"), ("in the closet", "looking for a place to sleep"),
    ("behind the door", "that wanted to come in"), ("at the window", "that wanted to come in"),
    ("on the roof", "that could not sleep"),
)  # fmt: skip
FLOWERS = ("red", "blue", "yellow", "white", "pink")
BREAKS = ("cup", "lamp", "drum", "boat", "bell", "doll", "box", "kite", "spoon")
WARM = ("coat", "hat", "scarf")
MADE = ("kite", "hat", "drum", "boat", "lamp", "doll", "box", "ring", "scarf", "spoon", "coat")

OPENINGS = ("Once upon a time there was a {child} named {hero}.", "There once was a {child} named {hero}.", "")
DAYTIME = (*OPENINGS, "It was a {weather} {time}.", "It was a {weather} {time}.")
WEATHER = ("cold", "warm", "windy", "quiet", "bright", "gray")
TIMES = ("morning", "day", "evening")


class Plot(NamedTuple):
    """A plot: what it is about (the field that makes its stories differ), its beats and their wordings, its summary."""

    about: str
    options: tuple[str, ...]
    beats: tuple[tuple[str, ...], ...]
    summary: str
    by_day: bool = True


PLOTS = {
    "lost": Plot(
        "item",
        ITEMS,
        (
            ("{hero} had {a_item}.", "{hero} got {a_item} from {his} {kin}.", "{hero} loved {his} {color} {item}."),
            ("One day {he} took it to the {place}.", "{He} took it along to the {place}."),
            (
                "There {he} ran and jumped, and the {item} fell out of {his} bag.",
                "{He} put it down, went off to play, and forgot where it was.",
                "But {his} bag had a hole, and soon the {item} was gone.",
            ),
            (
                "{He} looked and looked, but {he} could not find it.",
                "{hero} sat down and cried.",
                "{hero} was very sad.",
            ),
            (
                "Then {friend} came by and saw the {item} behind a big stone.",
                "But {friend} had good eyes and saw the {item} in the tall grass.",
                "{friend} helped to look, and there was the {item}, under an old tree.",
            ),
            ('"Is this yours?" asked {friend}.', '"Look what I found!" said {friend}.', ""),
            ("{hero} smiled and said thank you.", "{hero} was so happy that {he} gave {friend} a big hug."),
        ),
        "{hero} lost {a_item}, and {friend} found it.",
    ),
    "broken": Plot(
        "item",
        BREAKS,
        (
            ("{friend} had {a_item}.", "{friend} was proud of {fhis} {color} {item}."),
            ("{hero} asked to play with it.", "{hero} wanted to hold it.", "{hero} liked it and picked it up."),
            (
                "But {he} ran too fast, and the {item} fell and broke.",
                "But it slipped out of {his} hand and broke.",
                "But {he} was not careful, and the {item} broke.",
            ),
            ('"I am so sorry," said {hero}.', "{hero} felt bad, but {he} told {friend} the truth."),
            (
                '"Thank you for telling me," said {friend}.',
                "{friend} was sad at first, but {fhe} was not angry.",
            ),
            ("They sat down and fixed the {item} with {fix}.", "Together they fixed it with {fix}."),
            ("After that, {hero} was always careful.", "Now it was even better than before.", ""),
        ),
        "{hero} broke {friend}'s {color} {item}, and they fixed it with {fix}.",
    ),
    "share": Plot(
        "treat",
        TREATS,
        (
            ("{hero} had a big {treat} for lunch.", "{hero} made a {treat} with {his} {kin}."),
            ("{friend} had nothing to eat.", "{friend} was hungry and had no food."),
            ("{hero} looked at the {treat} and then at {friend}.", "{hero} saw that {friend} was sad.", ""),
            (
                "So {he} cut the {treat} in two and gave one half to {friend}.",
                'Then {hero} said, "Half of this {treat} is for you."',
            ),
            ("They ate it together {at} the {place}.", "They sat down {at} the {place} and ate."),
            (
                '"It tastes better when we share," said {hero}.',
                "The next day {friend} shared {fhis} lunch with {hero}.",
                "Now nobody was hungry, and they were good friends.",
            ),
        ),
        "{hero} shared a {treat} with {friend}.",
    ),
    "rain": Plot(
        "item",
        WARM,
        (
            (
                "{hero} was {at} the {place} when it started to rain.",
                "{hero} played {at} the {place}, and then the rain came.",
            ),
            (
                "{He} got wet and cold.",
                "Soon {he} was wet from head to foot.",
                "The rain was cold, and {he} was far from home.",
            ),
            ("{friend} saw {him} and ran out.", "{friend} came along the road and stopped."),
            ("{Fhe} gave {him} {a_item}.", '"Take this," said {friend}, and gave {him} {a_item}.'),
            ("They ran home and drank hot milk by the fire.", "They walked home and ate hot soup.", ""),
            ('"Now I am warm again," said {hero}.', "{hero} was warm again and thanked {friend}."),
        ),
        "{hero} got wet in the rain, and {friend} gave {him} {a_item}.",
    ),
    "stuck": Plot(
        "animal",
        ANIMALS,
        (
            ("{hero} heard a small cry {at} the {place}.", "{hero} went for a walk to the {place} and heard a cry."),
            ("It was {a_animal}, stuck {where}.", "{A_animal} was stuck {where}."),
            ("It was afraid and could not get out.", "It was very afraid.", "It looked at {him} with big eyes."),
            ("{hero} ran home to get a {tool}.", '"Wait here," said {hero}, and ran to get a {tool}.'),
            ("With the {tool}, {he} set the {animal} free.", "Slowly and with care {he} helped it with the {tool}."),
            (
                "The {animal} jumped for joy.",
                "After that, the {animal} came to see {him} every day.",
                "The {animal} followed {him} all the way home.",
            ),
        ),
        "{hero} used a {tool} to help {a_animal} that was stuck {where}.",
    ),
    "gift": Plot(
        "item",
        MADE,
        (
            ("It was nearly {friend}'s birthday.", "The next day was {friend}'s birthday."),
            ("{hero} had no money, but {he} had an idea.", "{hero} wanted to give {fhim} something nice."),
            ("{He} worked all night and made {a_item}.", "With {his} own two hands {he} made {a_item}."),
            ("{friend} opened the bag and laughed with joy.", "When {friend} saw it, {fhe} jumped up and down."),
            ('"This is the best gift of all," said {friend}.', '"You made this for me?" asked {friend}.', ""),
            (
                "{hero} was happy and a little bit tired.",
                "{hero} was proud.",
                "{friend} kept the {item} for a long time.",
            ),
        ),
        "{hero} made {a_item} for {friend}'s birthday.",
        by_day=False,
    ),
    "noise": Plot(
        "animal",
        GUESTS,
        (
            ("It was late, and {hero} was in bed.", "The night was dark, and {hero} could not sleep."),
            ("Then {he} heard a noise {noise}.", "There was a noise {noise}."),
            ("{hero} was afraid.", "{He} hid and did not move.", '"Who is there?" asked {hero}.'),
            ("But {he} took a light and went to look.", "At last {he} stood up to look."),
            ("It was only {a_animal} {reason}.",),
            ("{hero} laughed and gave it some bread.", "{hero} laughed and laughed.", "{hero} gave it some milk."),
            ("After that, {he} was not afraid of the dark.", ""),
        ),
        "{hero} heard a noise {noise}, but it was only {a_animal}.",
        by_day=False,
    ),
    "race": Plot(
        "hurt",
        ("knee", "foot", "hand", "arm", "leg"),
        (
            (
                "{hero} and {friend} ran a race to the {place}.",
                '"I can run to the {place} faster than you," said {friend} to {hero}.',
            ),
            ("{hero} was fast and soon came first.", "They ran like the wind, and {hero} was first."),
            ("Then {friend} fell and hurt {fhis} {hurt}.", "But {friend} fell over a stone and hurt {fhis} {hurt}."),
            ("{hero} could win now, but {he} stopped.", "{hero} heard {fhim} cry and turned back."),
            ("{He} helped {friend} to stand up.", "{He} sat down with {friend} until it was better."),
            ("They walked the rest of the way hand in hand.", "Then they walked home together, very slowly."),
            ('"A friend is better than a prize," said {hero}.', "Nobody won the race, and nobody was sad.", ""),
        ),
        "{hero} stopped a race because {friend} hurt {fhis} {hurt}.",
    ),
    "seed": Plot(
        "color",
        FLOWERS,
        (
            ("{hero} found a seed {at} the {place}.", "{friend} gave {hero} a seed {at} the {place}."),
            ("{He} put it in the ground and gave it water every day.", "{He} planted it and gave it water."),
            ("For a long time nothing came up.", "Days went by, and there was nothing to see."),
            ('"It will never grow," said {friend}.', "{friend} laughed at {him}."),
            ("But {hero} did not give up.", '"Wait and see," said {hero}.', "But {hero} waited."),
            ("Then one morning there was a tall {color} flower.", "At last a {color} flower came out of the ground."),
            ("Even {friend} had to smile.", "{He} gave the flower to {his} {kin}.", ""),
        ),
        "{hero} waited a long time, and the seed became a {color} flower.",
    ),
    "trade": Plot(
        "item",
        ITEMS,
        (
            ("{hero} had {a_item}, and {friend} had {a_item2}.",),
            (
                "{hero} was tired of the {item}.",
                "{hero} liked the {item2} more.",
                "{hero} looked at the {item2} all day.",
            ),
            ("{friend} liked the {item} more.", "And {friend} had always wanted a {item}."),
            ('"Do you want to trade?" asked {hero}.', '"Let us trade," said {friend}.'),
            (
                "So {hero} took the {item2}, and {friend} took the {item}.",
                "So {hero} gave the {item} to {friend} and got the {item2}.",
            ),
            ("They both went home happy.", "It was a good day for both of them."),
        ),
        "{hero} traded a {item} for {friend}'s {item2}.",
    ),
    "fed": Plot(
        "animal",
        ANIMALS,
        (
            ("A hungry {animal} came to {hero}'s door.", "{hero} met a hungry {animal} {at} the {place}."),
            ("{hero} had only a little {food}.", "{hero} had some {food} for lunch."),
            ("{He} gave the {animal} half of it.", "{He} gave all of it to the {animal}."),
            ("It ate and ran away.", "The {animal} ate, looked at {him}, and went off."),
            (
                "The next morning {hero} found {a_item} at the door.",
                "The next day it came back with {a_item} for {hero}.",
            ),
            ('"The {animal} did not forget me," said {hero}.', '"Thank you, little friend," said {hero}.', ""),
        ),
        "{hero} fed a hungry {animal}, and it brought {him} {a_item}.",
    ),
    "way": Plot(
        "animal",
        ANIMALS,
        (
            ("{hero} walked alone to the {place}.", "{hero} went off to see the {place}."),
            ("It got dark, and {he} could not find the way home.", "Then it got dark, and {hero} was lost."),
            ("{He} sat down and started to cry.", '"What can I do?" said {hero}.', "{He} was afraid."),
            ("{A_animal} came out of the dark.", "Then {a_animal} came along the road."),
            ('"Come with me," said the {animal}.', '"I know the way," said the {animal}.'),
            ("It walked with {him} to {his} door.", "{hero} followed the {animal}, and soon {he} saw a light."),
            ("{His} {kin} gave them both hot soup.", "{hero} never forgot that night.", ""),
        ),
        "{hero} got lost near the {place}, and {a_animal} showed {him} the way home.",
    ),
}
FOODS_TO_GIVE = ("bread", "soup", "milk", "rice", "cheese", "fish")
FIXES = ("glue", "tape", "string")


class Story(NamedTuple):
    """A story, the one line that sums it up, and the combination that it is about."""

    text: str
    summary: str
    key: str


def _cast(draw: Draw, split: Split) -> tuple[Plot, dict[str, str], str]:
    """Draw plot, people and things until the story's combination is on the wanted side.

    In training also every pair of facts that a sentence may state (who has what, who is where) must be allowed.
    """
    while True:
        name = draw.pick(tuple(PLOTS))
        plot = PLOTS[name]
        hero = draw.pick(NAMES)
        friend = draw.pick(GIRLS if hero in BOYS else BOYS)  # so that "he" and "she" are never in doubt
        about = draw.pick(plot.options)
        item = about if plot.about == "item" else draw.pick(ITEMS)
        item2 = draw.pick([other for other in ITEMS if other != item])
        color, color2 = draw.some(COLORS, 2)
        place = draw.pick(tuple(PLACES))
        where, tool = draw.pick(HIGH + LOW if about in CLIMBERS else LOW)
        noise, reason = draw.pick(NOISES)
        fields = {
            "hero": hero, "friend": friend, "color": color, "item": item, "item2": item2, "place": place,
            "at": PLACES[place], "color2": color2, "where": where, "tool": tool, "noise": noise, "reason": reason,
            "food": draw.pick(FOODS_TO_GIVE), "fix": draw.pick(FIXES), "kin": draw.pick(KIN),
            "weather": draw.pick(WEATHER), "time": draw.pick(TIMES), plot.about: about,
        }  # fmt: skip
        key = f"{name} {hero} {about}"
        if heldout("story", key) != (split == "heldout"):
            continue
        if split == "train" and any(
            heldout("item", f"{who} {what}") or heldout("place", f"{who} {place}")
            for who in (hero, friend)
            for what in (f"{color} {item}", f"{color2} {item2}")
        ):
            continue
        return plot, fields, key


def story(draw: Draw, split: Split) -> Story:
    """One story of four to nine short sentences with its summary; held-out stories are about held-out combinations."""
    plot, fields, key = _cast(draw, split)
    hero = fields["hero"]
    he, him, his = ("he", "him", "his") if hero in BOYS else ("she", "her", "her")
    fhe, fhim, fhis = ("she", "her", "her") if hero in BOYS else ("he", "him", "his")
    fields |= {
        "he": he, "him": him, "his": his, "He": he.capitalize(), "His": his.capitalize(),
        "fhe": fhe, "fhim": fhim, "fhis": fhis, "Fhe": fhe.capitalize(), "child": "boy" if he == "he" else "girl",
        "a_item": f"a {fields['color']} {fields['item']}", "a_item2": f"a {fields['color2']} {fields['item2']}",
    }  # fmt: skip
    if plot.about == "animal":
        fields["a_animal"] = article(fields["animal"])
        fields["A_animal"] = fields["a_animal"].capitalize()
    openings = DAYTIME if plot.by_day else OPENINGS
    beats = [draw.pick(beat) for beat in (openings, *plot.beats)]
    text = " ".join(beat for beat in beats if beat).format_map(fields)
    return Story(text, plot.summary.format_map(fields), key)
