"""The families of word problems (see `problems`): two dozen structures, each in three wordings. All of it is ours."""

from __future__ import annotations

from pippin.data.synthesis.problems import Family, step

FAMILIES = (
    Family(
        "change", "money", {"n": (2, 12), "price": (2, 15), "paid": (10, 200)},
        (step("cost", "n * price", "the {things} cost {eq} dollars."),
         step("change", "paid - cost", "{who} gets back {eq} dollars.")),
        (("{who} buys {n} {things} for {price} dollars each and pays with {paid} dollars.",
          "How many dollars does {who} get back?"),
         ("One of the {things} in a shop costs {price} dollars. {who} takes {n} of them and gives the seller {paid} "
          "dollars.", "How many dollars of change does the seller give back?"),
         ("{who} goes to the market with {paid} dollars and spends part of them on {n} {things} at {price} dollars "
          "apiece.", "How many dollars are left?")),
        "the change that {whose} gets back", "dollars", {"things": ("pens", "cups", "scarves", "brushes", "plates")},
    ),
    Family(
        "wages", "money", {"rate": (8, 30), "hours": (2, 9), "days": (2, 6), "spent": (10, 400)},
        (step("daily_pay", "rate * hours", "a day brings {eq} dollars."),
         step("pay", "daily_pay * days", "all days bring {eq} dollars."),
         step("rest", "pay - spent", "after the shopping {eq} dollars are left.")),
        (("{who} earns {rate} dollars an hour and works {hours} hours a day for {days} days. Then {who} spends {spent} "
          "dollars of it on {things}.", "How many dollars are left?"),
         ("For {days} days {who} works {hours} hours a day at {rate} dollars an hour. {spent} dollars of the pay go "
          "into {things}.", "How many dollars of the pay remain?"),
         ("An hour of work brings {who} {rate} dollars. After {days} days of {hours} hours each, {who} buys {things} "
          "for {spent} dollars.", "How much of the earned money, in dollars, does {who} still have?")),
        "the money that {whose} has left", "dollars", {"things": ("tools", "shoes", "a bicycle", "a coat")},
    ),
    Family(
        "savings", "money", {"start": (5, 90), "weekly": (2, 25), "weeks": (2, 20)},
        (step("saved", "weekly * weeks", "in these weeks {who} saves {eq} dollars."),
         step("total", "start + saved", "with the first money that is {eq} dollars.")),
        (("{who} has {start} dollars in a box and adds {weekly} dollars every week for {weeks} weeks.",
          "How many dollars are in the box then?"),
         ("Every week {who} puts {weekly} dollars aside. There were {start} dollars to begin with, and {weeks} weeks "
          "have passed.", "How many dollars has {who} now?"),
         ("{weeks} weeks ago {who} had {start} dollars. Since then {who} has saved {weekly} dollars a week.",
          "What are the savings now, in dollars?")),
        "the amount that {whose} has saved", "dollars",
    ),
    Family(
        "goal", "money", {"goal": (60, 400), "gift": (5, 80), "weekly": (2, 20), "weeks": (2, 12)},
        (step("saved", "weekly * weeks", "{who} saves {eq} dollars."),
         step("owned", "saved + gift", "with the gift {who} has {eq} dollars."),
         step("missing", "goal - owned", "{eq} dollars are missing.")),
        (("{who} wants a {thing} that costs {goal} dollars. {who} gets {gift} dollars as a gift and saves {weekly} "
          "dollars a week for {weeks} weeks.", "How many dollars are still missing?"),
         ("A {thing} costs {goal} dollars. For {weeks} weeks {who} lays {weekly} dollars a week aside, and an aunt "
          "adds {gift} dollars.", "How many more dollars does {who} need?"),
         ("{who} saves {weekly} dollars in each of {weeks} weeks and finds {gift} dollars in an old jar, all for a "
          "{thing} at {goal} dollars.", "How many dollars does {who} lack?")),
        "the amount that {whose} lacks", "dollars", {"thing": ("drum", "camera", "telescope", "guitar", "desk")},
    ),
    Family(
        "tickets", "money", {"adults": (2, 30), "full": (6, 25), "children": (2, 40), "half": (2, 12)},
        (step("adult_money", "adults * full", "the adults pay {eq} dollars."),
         step("child_money", "children * half", "the children pay {eq} dollars."),
         step("takings", "adult_money + child_money", "together they pay {eq} dollars.")),
        (("At {who}'s {show} a ticket costs {full} dollars for an adult and {half} dollars for a child. {adults} "
          "adults and {children} children come.", "How many dollars do the tickets bring?"),
         ("{adults} adults at {full} dollars each and {children} children at {half} dollars each see {who}'s {show}.",
          "How many dollars are taken in?"),
         ("{who} sells tickets to a {show}: {full} dollars for adults, {half} dollars for children. {children} "
          "children and {adults} adults buy one.", "How many dollars does {who} receive?")),
        "the money that {whose} takes in", "dollars", {"show": ("concert", "play", "puppet show", "film evening")},
    ),
    Family(
        "discount", "money", {"price": (20, 600), "percent": (5, 60)},
        (step("hundredfold", "price * percent", "the price times the percentage is {eq}."),
         step("off", "hundredfold / 100", "divided by a hundred that is {eq} dollars less."),
         step("new_price", "price - off", "{who} pays {eq} dollars.")),
        (("A {thing} costs {price} dollars. {who} gets it {percent} percent cheaper.",
          "How many dollars does {who} pay?"),
         ("{who} buys a {thing} in a sale in which everything is {percent} percent off. Before, it cost {price} "
          "dollars.", "What does {who} pay, in dollars?"),
         ("The price of a {thing} was {price} dollars until it was lowered by {percent} percent. Now {who} buys it.",
          "How many dollars is the new price?")),
        "the price that {whose} pays", "dollars", {"thing": ("lamp", "chair", "carpet", "stove")},
    ),
    Family(
        "boxes", "sharing", {"boxes": (2, 20), "each": (3, 30), "people": (2, 15)},
        (step("all", "boxes * each", "there are {eq} {things}."),
         step("share", "all / people", "everybody gets {eq} {things}.")),
        (("{who} has {boxes} boxes with {each} {things} in each and shares all of them equally among {people} people.",
          "How many {things} does everybody get?"),
         ("{people} people divide equally what is in {who}'s {boxes} boxes. A box holds {each} {things}.",
          "How many {things} does each person get?"),
         ("There are {each} {things} in each of {boxes} boxes. {who} hands them out so that {people} people get the "
          "same number and none are left.", "How many {things} does one of them get?")),
        "the number of {things} in a share from {whose}", "", {"things": ("nuts", "stamps", "beads", "marbles")},
    ),
    Family(
        "giving", "sharing", {"had": (20, 200), "first": (2, 60), "second": (2, 60)},
        (step("after_first", "had - first", "after the first gift {eq} {things} are left."),
         step("left", "after_first - second", "after the second gift {eq} {things} are left.")),
        (("{who} has {had} {things}, gives {first} of them to a neighbour and then {second} to a teacher.",
          "How many {things} does {who} still have?"),
         ("A neighbour gets {first} and a teacher gets {second} of the {had} {things} that {who} had.",
          "How many {things} does {who} keep?"),
         ("Of {who}'s {had} {things}, {first} go to a neighbour. A teacher receives another {second}.",
          "How many {things} are left?")),
        "the number of {things} that {whose} keeps", "", {"things": ("pears", "plums", "books", "keys", "figs")},
    ),
    Family(
        "fraction", "sharing", {"april": (6, 200), "part": (2, 9)},
        (step("may", "april / part", "in May {who} sells {eq} {things}."),
         step("both", "april + may", "in both months together {who} sells {eq} {things}.")),
        (("In April {who} sells {april} {things}, which is {part} times as many as in May.",
          "How many {things} does {who} sell in both months together?"),
         ("{who} sold {part} times as many {things} in April as in May. In April it was {april} {things}.",
          "How many {things} were sold in April and May?"),
         ("To get the {april} {things} that {who} sold in April, multiply the number sold in May by {part}.",
          "What is the number of {things} sold in the two months?")),
        "the number of {things} that {whose} sells in two months", "", {"things": ("kites", "dolls", "jars", "hats")},
    ),
    Family(
        "rows", "farming", {"rows": (3, 40), "per": (3, 40), "lost": (2, 90)},
        (step("planted", "rows * per", "{who} plants {eq} {things}."),
         step("left", "planted - lost", "{eq} {things} are left.")),
        (("{who} plants {rows} rows of {per} {things}. A storm breaks {lost} of them.",
          "How many {things} are left?"),
         ("In {who}'s garden {things} stand in {rows} rows, {per} in a row, until {lost} of them freeze.",
          "How many {things} remain?"),
         ("A storm takes {lost} of the {things} in a field where {who} had set {rows} rows with {per} in each.",
          "How many {things} still stand?")),
        "the number of {things} that {whose} has left", "", {"things": ("trees", "tulips", "cabbages", "vines")},
    ),
    Family(
        "legs", "farming", {"hens": (2, 60), "goats": (2, 40)},
        (step("hen_legs", "hens * 2", "the hens have {eq} legs."),
         step("goat_legs", "goats * 4", "the {animals} have {eq} legs."),
         step("legs", "hen_legs + goat_legs", "together that is {eq} legs.")),
        (("On {who}'s farm there are {hens} hens, each with 2 legs, and {goats} {animals}, each with 4 legs.",
          "How many legs have they together?"),
         ("{who} keeps {goats} {animals} and {hens} hens. A hen has 2 legs, each of the {animals} has 4.",
          "How many legs is that?"),
         ("{hens} hens on 2 legs and {goats} {animals} on 4 legs walk through {who}'s yard.",
          "How many legs walk through the yard?")),
        "the number of legs on the farm of {whose}", "", {"animals": ("goats", "cows", "ponies")},
    ),
    Family(
        "harvest", "farming", {"sacks": (3, 60), "weight": (5, 50), "kept": (10, 300), "carts": (2, 9)},
        (step("crop", "sacks * weight", "the crop weighs {eq} kilograms."),
         step("sold", "crop - kept", "{eq} kilograms are sold."),
         step("load", "sold / carts", "a cart carries {eq} kilograms.")),
        (("{who} fills {sacks} sacks with {weight} kilograms of {crop} each, keeps {kept} kilograms and loads the rest "
          "evenly on {carts} carts.", "How many kilograms does a cart carry?"),
         ("A sack holds {weight} kilograms of {crop}, and {who} has {sacks} sacks. All but {kept} kilograms go to the "
          "market on {carts} carts with equal loads.", "How many kilograms is one load?"),
         ("After keeping {kept} kilograms of a harvest of {sacks} sacks of {crop}, {weight} kilograms in each, {who} "
          "divides what is left among {carts} equal carts.", "What does each cart carry, in kilograms?")),
        "the load on a cart of {whose}", "kilograms", {"crop": ("wheat", "potatoes", "rye", "beans")},
    ),
    Family(
        "two_speeds", "travel", {"v": (20, 110), "h": (2, 6), "w": (10, 90), "g": (2, 6)},
        (step("first_way", "v * h", "the first part is {eq} kilometres."),
         step("second_way", "w * g", "the second part is {eq} kilometres."),
         step("way", "first_way + second_way", "the whole way is {eq} kilometres.")),
        (("{who} drives {h} hours at {v} kilometres an hour and then {g} hours at {w} kilometres an hour.",
          "How many kilometres does {who} drive?"),
         ("On a trip {who} goes at {v} kilometres an hour for {h} hours and at {w} kilometres an hour for {g} hours.",
          "How long is the whole way, in kilometres?"),
         ("For the first {h} hours {who}'s bus does {v} kilometres an hour, for the other {g} hours {w} kilometres an "
          "hour.", "How many kilometres does the bus go?")),
        "the way that {whose} travels", "kilometres",
    ),
    Family(
        "pause", "travel", {"way": (20, 900), "speed": (4, 90), "pause": (2, 6)},
        (step("driving", "way / speed", "the driving takes {eq} hours."),
         step("time", "driving + pause", "with the pause it is {eq} hours.")),
        (("{who} has to go {way} kilometres at {speed} kilometres an hour, and rests for {pause} hours on the way.",
          "How many hours does the journey take?"),
         ("A journey of {way} kilometres, at a speed of {speed} kilometres an hour, is broken by a rest of {pause} "
          "hours. {who} makes it.", "How many hours is {who} under way?"),
         ("With a stop of {pause} hours, {who} travels {way} kilometres and covers {speed} of them in an hour.",
          "What is the time needed in all, in hours?")),
        "the time that the journey of {whose} takes", "hours",
    ),
    Family(
        "catching_up", "travel", {"ahead": (6, 200), "fast": (5, 60), "slow": (3, 50)},
        (step("gain", "fast - slow", "in an hour {who} gains {eq} kilometres."),
         step("hours", "ahead / gain", "it takes {eq} hours.")),
        (("A {vehicle} is {ahead} kilometres ahead and goes {slow} kilometres an hour. {who} follows it at {fast} "
          "kilometres an hour.", "After how many hours does {who} reach it?"),
         ("{who} follows a {vehicle} at {fast} kilometres an hour. The {vehicle} goes only {slow} kilometres an hour, "
          "but has a lead of {ahead} kilometres.", "How many hours does it take to catch up?"),
         ("The lead of a {vehicle} is {ahead} kilometres. Its speed is {slow} kilometres an hour, and that of {who}, "
          "who pursues it, {fast} kilometres an hour.", "How many hours does the pursuit last?")),
        "the time until {whose} catches up", "hours", {"vehicle": ("cart", "tractor", "boat", "bicycle")},
    ),
    Family(
        "ages", "people", {"age": (3, 20), "times": (2, 5), "years": (2, 30)},
        (step("age_now", "age * times", "today the {parent} is {eq} years old."),
         step("age_then", "age_now + years", "then the {parent} is {eq} years old.")),
        (("{who} is {age} years old, and {who}'s {parent} is {times} times as old. {years} years go by.",
          "How old, in years, is the {parent} then?"),
         ("The {parent} of {who} is {times} times as old as {who}, who is {age}. Think of the time {years} years from "
          "now.", "What age, in years, has the {parent} by then?"),
         ("{years} years ago {who} was {age}, and a {parent} of {who} was {times} times that age.",
          "How many years old is the {parent} today?")),
        "the age that the {parent} of {whose} reaches", "years", {"parent": ("uncle", "aunt", "teacher", "neighbour")},
    ),
    Family(
        "siblings", "people", {"young": (2, 30), "gap": (2, 20), "years": (2, 15)},
        (step("old", "young + gap", "the older one is {eq} years old."),
         step("both", "young + old", "together they are {eq} years old."),
         step("growth", "years * 2", "in that time they age by {eq} years together."),
         step("later", "both + growth", "then they are {eq} years old together.")),
        (("{who} is {young} years old and has a {kin} who is {gap} years older. After {years} years they add up their "
          "ages.", "How many years do they get?"),
         ("{who}'s {kin} is {gap} years older than {who}, who is {young}. Imagine both of them {years} years later.",
          "What is the sum of their ages then, in years?"),
         ("{gap} years lie between {who}, who is {young}, and an older {kin}. {years} years pass.",
          "How many years old are the two together at the end?")),
        "the sum of the ages for {whose} and the {kin}", "years", {"kin": ("sister", "brother", "cousin")},
    ),
    Family(
        "reading", "school", {"pages": (80, 600), "daily": (8, 50), "days": (2, 12), "faster": (5, 60)},
        (step("read", "daily * days", "{who} has read {eq} pages."),
         step("rest", "pages - read", "{eq} pages are left."),
         step("more_days", "rest / faster", "they take {eq} days.")),
        (("{who} reads {daily} pages a day of a {book} with {pages} pages. After {days} days {who} goes on with "
          "{faster} pages a day.", "How many more days does {who} need?"),
         ("A {book} has {pages} pages. For {days} days {who} reads {daily} pages a day, from then on {faster} pages a "
          "day.", "How many days does the second part of the reading take?"),
         ("Having read {daily} pages on each of {days} days, {who} reads what is left of a {book} of {pages} pages at "
          "{faster} pages a day.", "How many days does that take?")),
        "the time in which {whose} ends the book", "days", {"book": ("novel", "history", "book of tales")},
    ),
    Family(
        "mean", "school", {"a": (20, 100), "b": (20, 100), "c": (20, 100)},
        (step("two", "a + b", "the first two make {eq}."),
         step("three", "two + c", "all three make {eq}."),
         step("average", "three / 3", "the average is {eq}.")),
        (("In three {tests} {who} scores {a}, {b} and {c} points.", "What is the average of the three scores?"),
         ("{who} gets {a} points in the first of 3 {tests}, {b} in the second and {c} in the third.",
          "How many points is that on average?"),
         ("The points of {who} in three {tests} are {a}, {b} and {c}.", "What is their mean?")),
        "the average of {whose}", "points", {"tests": ("tests", "games", "rounds", "matches")},
    ),
    Family(
        "outing", "school", {"classes": (2, 12), "pupils": (12, 32), "adults": (2, 30), "seats": (8, 60)},
        (step("children", "classes * pupils", "there are {eq} pupils."),
         step("people", "children + adults", "with the adults {eq} people travel."),
         step("buses", "people / seats", "they need {eq} {vehicles}.")),
        (("{who} plans an outing for {classes} classes with {pupils} pupils each and {adults} adults. They travel in "
          "{vehicles} with {seats} seats, and every seat is taken.", "How many {vehicles} do they need?"),
         ("{adults} adults and {classes} classes of {pupils} pupils fill all seats of some {vehicles}, which {who} has "
          "ordered. There are {seats} seats in each.", "How many {vehicles} did {who} order?"),
         ("For {classes} classes, {pupils} pupils in each, and {adults} adults {who} rents {vehicles}. Each takes "
          "{seats} people, and none has a free seat.", "How many {vehicles} are rented?")),
        "the number of {vehicles} for the outing of {whose}", "", {"vehicles": ("buses", "boats", "coaches")},
    ),
    Family(
        "fence", "building", {"length": (3, 60), "width": (2, 50), "price": (2, 20)},
        (step("half", "length + width", "length and width make {eq} metres."),
         step("around", "half * 2", "the way around is {eq} metres."),
         step("cost", "around * price", "the fence costs {eq} dollars.")),
        (("{who} puts a fence around a {place}, a rectangle {length} metres long and {width} metres wide. A metre of "
          "fence costs {price} dollars.", "How many dollars does the fence cost?"),
         ("A fence at {price} dollars a metre is to run around {who}'s {place}, which is a rectangle of {length} "
          "metres by {width} metres.", "What does the fence cost, in dollars?"),
         ("The sides of {who}'s rectangular {place} measure {length} and {width} metres. It gets a fence all around, "
          "for which {who} pays {price} dollars a metre.", "How many dollars does {who} pay?")),
        "the price of the fence of {whose}", "dollars", {"place": ("garden", "meadow", "yard", "playground")},
    ),
    Family(
        "tiles", "building", {"length": (2, 40), "width": (2, 30), "tile": (2, 12), "spare": (2, 30)},
        (step("area", "length * width", "the floor has {eq} square metres."),
         step("laid", "area / tile", "it takes {eq} {things}."),
         step("bought", "laid + spare", "with the spare ones that is {eq} {things}.")),
        (("{who} covers a floor of {length} by {width} metres with {things} of {tile} square metres each, and buys "
          "{spare} {things} too many.", "How many {things} does {who} buy?"),
         ("A floor is {length} metres long and {width} metres wide. One of the {things} covers {tile} square metres. "
          "{who} orders what is needed and {spare} to spare.", "How many {things} does {who} order?"),
         ("Each of the {things} that {who} lays covers {tile} square metres; the floor measures {length} metres by "
          "{width} metres. {spare} of those that {who} bought are left over at the end.",
          "How many {things} did {who} buy?")),
        "the number of {things} that {whose} buys", "", {"things": ("mats", "boards", "panels")},
    ),
    Family(
        "tank", "water", {"volume": (20, 900), "inflow": (4, 60), "outflow": (2, 40)},
        (step("net", "inflow - outflow", "in a minute the water grows by {eq} litres."),
         step("minutes", "volume / net", "it takes {eq} minutes.")),
        (("{who}'s empty {vessel} holds {volume} litres. A pipe brings {inflow} litres a minute while {outflow} litres "
          "a minute leak out.", "After how many minutes is it full?"),
         ("Every minute {inflow} litres run into {who}'s {vessel} and {outflow} litres run out of it. It was empty, "
          "and holds {volume} litres.", "How many minutes does it take to fill it?"),
         ("To fill a {vessel} of {volume} litres, {who} opens a tap that gives {inflow} litres a minute, but a hole "
          "loses {outflow} litres a minute.", "How many minutes pass until it is full?")),
        "the time in which {whose} fills the {vessel}", "minutes", {"vessel": ("tank", "pond", "trough", "basin")},
    ),
    Family(
        "watering", "water", {"beds": (2, 20), "cans": (2, 8), "litres": (3, 15), "stock": (50, 900)},
        (step("needed_cans", "beds * cans", "that is {eq} cans."),
         step("used", "needed_cans * litres", "they hold {eq} litres."),
         step("left", "stock - used", "{eq} litres are left.")),
        (("{who} waters {beds} beds of {plants} with {cans} cans each. A can holds {litres} litres, and the water "
          "comes from a barrel with {stock} litres.", "How many litres are left in the barrel?"),
         ("A barrel holds {stock} litres. From it {who} fills cans of {litres} litres and gives each of {beds} beds of "
          "{plants} {cans} cans.", "How many litres remain in the barrel?"),
         ("Each of {who}'s {beds} beds of {plants} gets {cans} cans of {litres} litres out of a barrel that had "
          "{stock} litres in it.", "How many litres does the barrel have at the end?")),
        "the water in the barrel of {whose}", "litres", {"plants": ("roses", "carrots", "herbs", "peas")},
    ),
    Family(
        "workshop", "work", {"machines": (2, 15), "hourly": (2, 25), "hours": (2, 10), "bad": (2, 60), "pack": (2, 24)},
        (step("an_hour", "machines * hourly", "in an hour {eq} {things} are made."),
         step("made", "an_hour * hours", "in all hours {eq} {things} are made."),
         step("good", "made - bad", "{eq} of them are good."),
         step("packs", "good / pack", "they fill {eq} boxes.")),
        (("In {who}'s workshop {machines} machines make {hourly} {things} an hour each. After {hours} hours {bad} of "
          "the {things} are thrown away and the others packed in boxes of {pack}, with none left over.",
          "How many boxes are filled?"),
         ("{who} lets {machines} machines run for {hours} hours. Each makes {hourly} {things} an hour. Without {bad} "
          "bad ones they fill boxes of {pack} exactly.", "How many boxes does {who} fill?"),
         ("A machine of {who}'s makes {hourly} {things} an hour, and {machines} such machines work for {hours} hours. "
          "{bad} {things} are broken; the rest goes into boxes that hold {pack} each and are all full.",
          "How many boxes are needed?")),
        "the number of boxes that {whose} fills", "", {"things": ("screws", "spoons", "buttons", "toys")},
    ),
    Family(
        "team", "work", {"people": (2, 12), "each": (2, 15), "done": (4, 60), "days": (2, 10)},
        (step("daily", "people * each", "in a day they {does} {eq} {things}."),
         step("all", "daily * days", "in all days they {does} {eq} {things}."),
         step("total", "all + done", "with the earlier ones that is {eq} {things}.")),
        (("{done} {things} of a school are done when {who} and friends, {people} people in all, begin. Each of them "
          "can {does} {each} {things} a day, and they work for {days} days.", "How many {things} are done at the end?"),
         ("For {days} days the {people} people of {who}'s team {does} {each} {things} a day each. {done} {things} had "
          "been done before.", "How many {things} are done now?"),
         ("{who} leads {people} workers who {does} {each} {things} a day each. They go on for {days} days where others "
          "had stopped after {done} {things}.", "What is the number of {things} done in the end?")),
        "the number of {things} for the team of {whose}", "",
        {"things": ("windows", "walls", "doors"), "does": ("paint", "clean", "repair")},
    ),
    Family(
        "cooling", "water", {"start": (40, 99), "drop": (2, 9), "hours": (2, 9)},
        (step("fall", "drop * hours", "the temperature falls by {eq} degrees."),
         step("end", "start - fall", "in the end it is {eq} degrees.")),
        (("The water in {who}'s {vessel} has {start} degrees and loses {drop} degrees an hour for {hours} hours.",
          "What temperature, in degrees, has it then?"),
         ("Every hour the water in {who}'s {vessel} cools by {drop} degrees. It began at {start} degrees, and {hours} "
          "hours have passed.", "How many degrees has it now?"),
         ("{who} fills a {vessel} with water of {start} degrees and leaves it for {hours} hours. It gets {drop} "
          "degrees colder in an hour.", "How warm is it at the end, in degrees?")),
        "the temperature in the {vessel} of {whose}", "degrees", {"vessel": ("kettle", "bath", "pot")},
    ),
)  # fmt: skip
