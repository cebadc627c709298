"""Writes podium/jobs/datasets.json from the installed torchvision: `python jobs/generate_datasets.py`.

The server rules on a dataset of torchvision without torch or the files; this is how it can. The names of the classes
come from torchvision where it carries them, else from here, always in the order of the label's numbers. Listed are the
datasets that are read without a download, and without unpickling any but the files whose digests torchvision knows.
"""

import inspect
import json
from pathlib import Path
from typing import Any

from torchvision import datasets

TARGET = Path(__file__).parent / "podium" / "jobs" / "datasets.json"

_BY_FLAG = ({"train": True}, {"train": False})
_BY_SPLIT = ({"split": "train"}, {"split": "test"})
_BY_TRAINVAL = ({"split": "trainval"}, {"split": "test"})
#: Name -> what torchvision's class is called with for train and for test; no test: the dataset has none of its own.
SPLITS: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "CIFAR10": _BY_FLAG,
    "CIFAR100": _BY_FLAG,
    "DTD": _BY_SPLIT,
    "EuroSAT": ({}, None),
    "FGVCAircraft": _BY_TRAINVAL,
    "FashionMNIST": _BY_FLAG,
    "Flowers102": _BY_SPLIT,
    "Food101": _BY_SPLIT,
    "GTSRB": _BY_SPLIT,
    "KMNIST": _BY_FLAG,
    "MNIST": _BY_FLAG,
    "OxfordIIITPet": _BY_TRAINVAL,
    "STL10": _BY_SPLIT,
    "SVHN": _BY_SPLIT,
}

#: What tells that torchvision has it below a root: a folder of it, or a file.
KEPT_IN = {
    "CIFAR10": "cifar-10-batches-py",
    "CIFAR100": "cifar-100-python",
    "DTD": "dtd/dtd",
    "EuroSAT": "eurosat/2750",
    "FGVCAircraft": "fgvc-aircraft-2013b/data",
    "FashionMNIST": "FashionMNIST/raw",
    "Flowers102": "flowers-102/jpg",
    "Food101": "food-101/images",
    "GTSRB": "gtsrb/GTSRB",
    "KMNIST": "KMNIST/raw",
    "MNIST": "MNIST/raw",
    "OxfordIIITPet": "oxford-iiit-pet/images",
    "STL10": "stl10_binary",
    "SVHN": "train_32x32.mat",
}
#: What torchvision reads from the dataset's own files, so that its code does not carry it.
CLASSES = {
    "CIFAR10": "airplane automobile bird cat deer dog frog horse ship truck",
    "CIFAR100": """
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
        castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
        elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
        man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
        pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
        skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
        tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm""",
    "DTD": """
        banded blotchy braided bubbly bumpy chequered cobwebbed cracked crosshatched crystalline dotted fibrous flecked
        freckled frilly gauzy grid grooved honeycombed interlaced knitted lacelike lined marbled matted meshed paisley
        perforated pitted pleated polka-dotted porous potholed scaly smeared spiralled sprinkled stained stratified
        striped studded swirly veined waffled woven wrinkled zigzagged""",
    "EuroSAT": """
        AnnualCrop Forest HerbaceousVegetation Highway Industrial Pasture PermanentCrop Residential River SeaLake""",
    "FGVCAircraft": """
        707-320, 727-200, 737-200, 737-300, 737-400, 737-500, 737-600, 737-700, 737-800, 737-900, 747-100, 747-200,
        747-300, 747-400, 757-200, 757-300, 767-200, 767-300, 767-400, 777-200, 777-300, A300B4, A310, A318, A319, A320,
        A321, A330-200, A330-300, A340-200, A340-300, A340-500, A340-600, A380, ATR-42, ATR-72, An-12, BAE 146-200,
        BAE 146-300, BAE-125, Beechcraft 1900, Boeing 717, C-130, C-47, CRJ-200, CRJ-700, CRJ-900, Cessna 172,
        Cessna 208, Cessna 525, Cessna 560, Challenger 600, DC-10, DC-3, DC-6, DC-8, DC-9-30, DH-82, DHC-1, DHC-6,
        DHC-8-100, DHC-8-300, DR-400, Dornier 328, E-170, E-190, E-195, EMB-120, ERJ 135, ERJ 145, Embraer Legacy 600,
        Eurofighter Typhoon, F-16A/B, F/A-18, Falcon 2000, Falcon 900, Fokker 100, Fokker 50, Fokker 70, Global Express,
        Gulfstream IV, Gulfstream V, Hawk T1, Il-76, L-1011, MD-11, MD-80, MD-87, MD-90, Metroliner, Model B200, PA-28,
        SR-20, Saab 2000, Saab 340, Spitfire, Tornado, Tu-134, Tu-154, Yak-42""",
    "Food101": """
        apple_pie baby_back_ribs baklava beef_carpaccio beef_tartare beet_salad beignets bibimbap bread_pudding
        breakfast_burrito bruschetta caesar_salad cannoli caprese_salad carrot_cake ceviche cheese_plate cheesecake
        chicken_curry chicken_quesadilla chicken_wings chocolate_cake chocolate_mousse churros clam_chowder
        club_sandwich crab_cakes creme_brulee croque_madame cup_cakes deviled_eggs donuts dumplings edamame
        eggs_benedict escargots falafel filet_mignon fish_and_chips foie_gras french_fries french_onion_soup
        french_toast fried_calamari fried_rice frozen_yogurt garlic_bread gnocchi greek_salad grilled_cheese_sandwich
        grilled_salmon guacamole gyoza hamburger hot_and_sour_soup hot_dog huevos_rancheros hummus ice_cream lasagna
        lobster_bisque lobster_roll_sandwich macaroni_and_cheese macarons miso_soup mussels nachos omelette onion_rings
        oysters pad_thai paella pancakes panna_cotta peking_duck pho pizza pork_chop poutine prime_rib
        pulled_pork_sandwich ramen ravioli red_velvet_cake risotto samosa sashimi scallops seaweed_salad
        shrimp_and_grits spaghetti_bolognese spaghetti_carbonara spring_rolls steak strawberry_shortcake sushi tacos
        takoyaki tiramisu tuna_tartare waffles""",
    "OxfordIIITPet": """
        Abyssinian, American Bulldog, American Pit Bull Terrier, Basset Hound, Beagle, Bengal, Birman, Bombay, Boxer,
        British Shorthair, Chihuahua, Egyptian Mau, English Cocker Spaniel, English Setter, German Shorthaired,
        Great Pyrenees, Havanese, Japanese Chin, Keeshond, Leonberger, Maine Coon, Miniature Pinscher, Newfoundland,
        Persian, Pomeranian, Pug, Ragdoll, Russian Blue, Saint Bernard, Samoyed, Scottish Terrier, Shiba Inu, Siamese,
        Sphynx, Staffordshire Bull Terrier, Wheaten Terrier, Yorkshire Terrier""",
    "STL10": "airplane bird car cat deer dog horse monkey ship truck",
}
#: Those whose classes have numbers only.
NUMBERED = {"GTSRB": 43, "SVHN": 10}


def document() -> str:
    """The text of the file, sorted by name."""
    rows = [
        {"name": name, "kept_in": KEPT_IN[name], "train": train, "test": test, "classes": classes_of(name)}
        for name, (train, test) in sorted(SPLITS.items())
    ]
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"


def classes_of(name: str) -> list[str]:
    """The classes, in the order of the label's numbers."""
    if name in NUMBERED:
        return [str(number) for number in range(NUMBERED[name])]
    if name in CLASSES:
        text = CLASSES[name]
        return [item.strip() for item in (text.split(",") if "," in text else text.split())]
    # MNIST is a property of every object; the list itself belongs to the class.
    return list(inspect.getattr_static(getattr(datasets, name), "classes"))


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
