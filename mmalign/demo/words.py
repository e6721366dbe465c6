"""The words of the generated shop: what its texts are composed of.

The texts speak of a theme, a material and an occasion. They must never name a colour or a pattern,
since that is what only the pictures show; a test checks it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BRANDS", "CATEGORIES", "MAKINGS", "OCCASIONS", "THEMES", "Category", "Theme"]


@dataclass(frozen=True)
class Theme:
    """What a product is about.

    Attributes:
        motifs: Names that a product of this theme may carry.
        lines: Sentences for the description; ``{a_noun}`` is the product with its article.
    """

    motifs: tuple[str, ...]
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Category:
    """A kind of product.

    Attributes:
        nouns: What the title may call it.
        materials: Material to the sentence that describes it.
        price: Typical price.
        style_weight: How much a buyer looks at colours and pattern, about 1.
        theme_weight: How much a buyer looks at the theme, about 1.
    """

    nouns: tuple[str, ...]
    materials: dict[str, str]
    price: float
    style_weight: float
    theme_weight: float


CATEGORIES = {
    "mug": Category(
        ("Mug", "Cup", "Coffee Mug"),
        {
            "stoneware": "Stoneware, thrown by hand and fired twice.",
            "porcelain": "Thin, strong porcelain with a smooth rim.",
            "enamel": "Enamelled steel that survives a fall.",
            "glass": "Double-walled glass that keeps the heat in.",
        },
        14.0,
        0.8,
        1.2,
    ),
    "lamp": Category(
        ("Lamp", "Table Lamp", "Bedside Lamp"),
        {
            "linen": "The shade is woven linen over a steel frame.",
            "paper": "The shade is folded from washi paper.",
            "oak": "The stem is turned from one piece of oak.",
            "brass": "The foot is solid brass and stands firmly.",
        },
        59.0,
        1.4,
        0.6,
    ),
    "shirt": Category(
        ("T-Shirt", "Tee", "Crew Neck"),
        {
            "cotton": "Heavy organic cotton, washed before sewing.",
            "hemp": "A hemp blend that gets softer every year.",
            "merino": "Fine merino, warm when damp and slow to smell.",
            "bamboo": "Bamboo jersey, light and quick to dry.",
        },
        27.0,
        0.9,
        1.2,
    ),
    "poster": Category(
        ("Poster", "Art Print", "Wall Print"),
        {
            "cotton paper": "Printed on thick cotton paper with a deckle edge.",
            "newsprint": "A large newsprint sheet, meant to be taped up.",
            "canvas": "Stretched canvas, ready to hang.",
            "aluminium": "Printed on a thin aluminium sheet that never curls.",
        },
        24.0,
        1.0,
        1.3,
    ),
    "cushion": Category(
        ("Cushion", "Pillow", "Throw Pillow"),
        {
            "velvet": "A velvet cover with a hidden zip.",
            "wool": "Boiled wool with a feather filling.",
            "corduroy": "Wide corduroy, washable at forty degrees.",
            "jute": "A sturdy jute cover for rough use.",
        },
        32.0,
        1.5,
        0.6,
    ),
    "tote": Category(
        ("Tote Bag", "Shopper", "Market Bag"),
        {
            "sailcloth": "Cut from retired sailcloth; no two are alike.",
            "waxed canvas": "Waxed canvas that shrugs off the rain.",
            "ripstop": "Ripstop nylon that folds into its own pocket.",
            "denim": "Made of leftover denim with doubled seams.",
        },
        21.0,
        1.1,
        1.0,
    ),
    "vase": Category(
        ("Vase", "Bud Vase", "Flower Vase"),
        {
            "terracotta": "Terracotta, sealed on the inside.",
            "blown glass": "Blown glass with a heavy bottom.",
            "bone china": "Bone china, light enough for a single stem.",
            "concrete": "Cast concrete with a cork foot.",
        },
        38.0,
        1.5,
        0.5,
    ),
    "notebook": Category(
        ("Notebook", "Journal", "Sketchbook"),
        {
            "laid paper": "Laid paper that takes a fountain pen well.",
            "ledger paper": "Numbered pages on heavy paper, with an index.",
            "stone paper": "Stone paper that can get wet.",
            "kraft board": "A kraft board cover and a sewn spine.",
        },
        13.0,
        0.8,
        1.3,
    ),
}

THEMES = {
    "sea": Theme(
        ("Harbour Light", "Spring Tide", "Lighthouse Keeper", "Northwest Gale", "Sea Shanty",
         "Bowline", "Safe Anchorage", "Tall Ship", "Driftwood", "Message in a Bottle"),
        ("For those who read the tide table before the weather.",
         "{a_noun} for long watches, salt on the lips and a good anchorage at last.",
         "Drawn by a skipper who spends her winters mending nets.",
         "It smells of tar and rope, or so we like to think."),
    ),
    "mountains": Theme(
        ("Summit Ridge", "Base Camp", "Alpine Hut", "Scree Slope", "Glacier Tongue", "Cairn",
         "Switchback Trail", "Dawn Ascent", "Tree Line", "Chamois"),
        ("For everyone who would rather be above the tree line.",
         "Made after eleven days of hiking from hut to hut.",
         "{a_noun} that remembers the last steep hour before the top.",
         "Belay, breathe, look down at the valley: that feeling."),
    ),
    "night sky": Theme(
        ("Saturn's Rings", "Orion's Belt", "Perseid Shower", "Lunar Eclipse", "Supernova",
         "Comet Tail", "Andromeda", "Star Chart", "Nebula", "Milky Way"),
        ("For people who carry a telescope out on frosty nights.",
         "Each constellation is where the catalogue of the observatory puts it.",
         "{a_noun} to think about distances measured in light years.",
         "Drawn at the eyepiece while Jupiter was up."),
    ),
    "garden": Theme(
        ("Potting Shed", "Heirloom Tomato", "Greenhouse", "Compost Heap", "Seed Packet",
         "Sweet Pea", "Rhubarb Patch", "Herbaceous Border", "Watering Can", "First Radish"),
        ("For anyone with soil under the fingernails from March to October.",
         "{a_noun} for the quiet hour between pruning and watering.",
         "It celebrates slugs defeated and beans that came up after all.",
         "Inspired by an allotment that has been in one family since 1931."),
    ),
    "baking": Theme(
        ("Sourdough", "Rolling Pin", "Cinnamon Knot", "Proving Basket", "Sunday Scones",
         "Crisp Crust", "Puff Pastry", "Flour Dust", "Rye Loaf", "Marzipan"),
        ("For bakers who name their starter and feed it on holidays.",
         "{a_noun} for the twenty minutes while the loaf is in the oven.",
         "Butter, patience and a hot stone are all you need besides.",
         "Dreamt up in a village bakery at four in the morning."),
    ),
    "jazz": Theme(
        ("Jam Session", "Upright Bass", "Late Set", "Bebop", "Brass Section", "Brushed Snare",
         "Smoky Alto", "Walking Bass", "Second Line Parade", "Stride Piano"),
        ("For listeners who clap on two and four.",
         "{a_noun} for the last set, when the trumpet player stops counting bars.",
         "Sketched in a cellar club between two solos.",
         "It swings even when nobody is playing."),
    ),
    "chess": Theme(
        ("Queen's Gambit", "Sicilian Defence", "Knight Fork", "Endgame", "Castled King",
         "Zugzwang", "Passed Pawn", "Blitz Clock", "Bishop Pair", "Fianchetto"),
        ("For minds that see four moves ahead and still blunder the rook.",
         "{a_noun} for correspondence games that last a whole year.",
         "The position is from a famous game; mate in three, if you can find it.",
         "Opening theory not included."),
    ),
    "cycling": Theme(
        ("Col Climb", "Peloton", "Cobbles", "Fixed Gear", "Sprint Finish", "Chainring",
         "Breakaway", "Velodrome", "Puncture Kit", "Tailwind"),
        ("For riders who count hairpins rather than kilometres.",
         "{a_noun} for the coffee stop halfway through Sunday's ride.",
         "Made by a former bike courier with strong calves and stronger opinions.",
         "Chain oiled, tyres pumped, legs shaved: off we go."),
    ),
    "cats": Theme(
        ("Windowsill Tabby", "Nine Lives", "Midnight Zoomies", "Cardboard Box", "Kitten",
         "Purring", "Tomcat", "Whiskers", "Sunbeam Nap", "Toppled Glass"),
        ("For households that are run by someone with whiskers.",
         "{a_noun} that will be sat upon within the hour.",
         "Approved by three kittens and one very old tom.",
         "It purrs, if you imagine hard enough."),
    ),
    "birds": Theme(
        ("Wren's Nest", "Murmuration", "Barn Owl", "Kingfisher", "Dawn Chorus", "Swift Return",
         "Heron Watch", "Finch Feeder", "Migrating Geese", "Hide and Binoculars"),
        ("For those who get up at five to hear a warbler.",
         "{a_noun} for the hide, the field guide and the flask.",
         "Feather by feather, after notes from a ringing station.",
         "A share of each sale pays for nesting boxes."),
    ),
    "film": Theme(
        ("Final Reel", "Matinee", "Director's Cut", "Film Noir", "Clapperboard", "Silent Era",
         "Drive-in", "Double Feature", "Plot Twist", "Closing Credits"),
        ("For people who stay in their seats until the credits have rolled.",
         "{a_noun} with the charm of an old picture house and its usherettes.",
         "Based on a storyboard that never made it to the screen.",
         "Best enjoyed in the third row with popcorn."),
    ),
    "trains": Theme(
        ("Night Sleeper", "Branch Line", "Signal Box", "Steam Whistle", "Platform Clock",
         "Dining Car", "Level Crossing", "Viaduct", "Ticket Punch", "Narrow Gauge"),
        ("For travellers who pick the slow train on purpose.",
         "{a_noun} for the window seat, with a timetable from 1958.",
         "The locomotive is drawn true to scale, down to the rivets.",
         "All aboard, mind the gap, tickets please."),
    ),
}  # fmt: skip

OCCASIONS = {
    "gift": ("Comes wrapped, with a card to write on.", "A present that needs no explaining."),
    "office": ("Good company at a desk full of work.", "Made for meetings that run late."),
    "kids": ("Sturdy enough for children and loved by them.", "For small hands and big questions."),
    "travel": ("Packs flat and weighs next to nothing.", "It has been around the world twice."),
    "student": ("Made for first flats and exam weeks.", "Fits a dorm room and its budget."),
    "party": (
        "Brings guests to talk to each other.",
        "Bring it along instead of a bottle of wine.",
    ),
    "wellness": ("For slow mornings and deep breaths.", "Part of an evening without screens."),
    "housewarming": (
        "The first thing to unpack in a new home.",
        "For friends who have just moved.",
    ),
}

MAKINGS = {
    "handmade": "Made by hand in small batches.",
    "recycled": "Half of it had a life before this one.",
    "local": "Made less than a day's ride from our door.",
    "fairtrade": "Everyone who worked on it was paid fairly.",
}

BRANDS = (
    "Alder & Finch", "Brightside", "Copper Lane", "Dovetail", "Elm Works", "Fable", "Greta Holm",
    "Hook & Eye", "Inkwell", "Juniper Row", "Kestrel", "Loft No. 9", "Maren", "Nine Yards",
    "Oddfellow", "Pieceful", "Quill", "Rook Studio", "Sorrel", "Tern", "Umber House", "Verso",
    "Wayfarer", "Yarrow",
)  # fmt: skip
