"""What a user asks for: the spec of a job, as frozen dataclasses.

The classes carry the names of the messages in podium.api.v1 and the fields their names; podium.jobs.wire converts by
walking the descriptors, and a test holds the two together. Defaults stand here and nowhere else. A oneof of messages is
one field with a union type: `JobSpec(sorter=OddEven(steepness=2))`.

Long, because it is the whole of what a user may write, a class a message; there is nothing else in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias


class Distribution(Enum):
    """How a comparator of a sorting network decides."""

    LOGISTIC = 1
    LOGISTIC_PHI = 2
    GAUSSIAN = 3
    RECIPROCAL = 4
    CAUCHY = 5
    OPTIMAL = 6


@dataclass(frozen=True, kw_only=True)
class Softmax:
    """Softmax cross-entropy over all classes, what the others are compared with. Goes with k = {1: 1} only."""


@dataclass(frozen=True, kw_only=True)
class OddEven:
    """The odd-even transposition network."""

    steepness: float = 2.0
    distribution: Distribution = Distribution.CAUCHY
    art_lambda: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Bitonic:
    """Batcher's bitonic network."""

    steepness: float = 2.0
    distribution: Distribution = Distribution.CAUCHY
    art_lambda: float = 0.5


@dataclass(frozen=True, kw_only=True)
class SplitterSelection:
    """The splitter selection network of Petersen et al. 2022."""

    steepness: float = 2.0
    distribution: Distribution = Distribution.CAUCHY
    art_lambda: float = 0.5


@dataclass(frozen=True, kw_only=True)
class NeuralSort:
    """NeuralSort (Grover et al. 2019)."""

    temperature: float = 2.0


@dataclass(frozen=True, kw_only=True)
class SoftSort:
    """SoftSort (Prillo and Eisenschlos 2020)."""

    temperature: float = 2.0


@dataclass(frozen=True, kw_only=True)
class SinkhornSort:
    """SinkhornSort (Cuturi et al. 2019): entropic optimal transport of the scores to the first ranks."""

    regularization: float = 0.1
    iterations: int = 30


@dataclass(frozen=True, kw_only=True)
class Subset:
    """The distribution over k-subsets (Vivier-Ardisson et al. 2026): softmax, generalised to every k."""

    temperature: float = 1.0


@dataclass(frozen=True, kw_only=True)
class OptimalTransport:
    """Optimal-transport top-k (Xie et al. 2020)."""

    regularization: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Sigmoid:
    """Sigmoid k-hot (2025): logistic membership, all classes together k."""

    temperature: float = 1.0


@dataclass(frozen=True, kw_only=True)
class LapSum:
    """LapSum (Struski et al. 2025): Laplace membership, all classes together k."""

    temperature: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Sparse:
    """Sparse top-k (Sander et al. 2023): membership that is exactly zero and one away from the threshold."""

    p: float = 4 / 3
    regularization: float = 8.0


@dataclass(frozen=True, kw_only=True)
class DFTopK:
    """DFTopK (Zhu et al. 2025): the threshold half-way between the k-th and the next score."""

    temperature: float = 1.0


@dataclass(frozen=True, kw_only=True)
class SmoothSVM:
    """The smooth top-k support vector machine (Berrada et al. 2018), a baseline."""

    margin: float = 1.0
    temperature: float = 1.0


@dataclass(frozen=True, kw_only=True)
class NoisedHinge:
    """The noised top-k hinge (Garcin et al. 2022), a baseline."""

    noise: float = 1.0
    draws: int = 5


@dataclass(frozen=True, kw_only=True)
class ImbalancedNoisedHinge:
    """The noised top-k hinge with larger margins for rarer classes (Garcin et al. 2022), a baseline."""

    noise: float = 0.01
    draws: int = 5
    max_margin: float = 0.2
    loss_scale: float = 60.0


Baseline: TypeAlias = SmoothSVM | NoisedHinge | ImbalancedNoisedHinge
Sorter: TypeAlias = (
    Softmax
    | OddEven
    | Bitonic
    | SplitterSelection
    | NeuralSort
    | SoftSort
    | SinkhornSort
    | Subset
    | OptimalTransport
    | Sigmoid
    | LapSum
    | Sparse
    | DFTopK
    | Baseline
)
"""What the spec's `sorter` may be; a baseline stands where a sorter stands."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Where the backbone's weights come from: exactly one of the four."""

    package: str | None = None
    """An installed Python package that carries weights."""
    file: str | None = None
    """A state dict, .safetensors or .pth without code in it: a path on shared storage, or a URI that is allowed."""
    checkpoint: str | None = None
    """The id of a checkpoint of an earlier job with the same backbone."""
    tag: str | None = None
    """A tag of the library's own weights, already in the worker's cache."""

    def __post_init__(self) -> None:
        if sum(source is not None for source in (self.package, self.file, self.checkpoint, self.tag)) != 1:
            raise ValueError("Weights: name exactly one of package, file, checkpoint and tag")


@dataclass(frozen=True, kw_only=True)
class LinearHead:
    """A new linear head on frozen features, which are computed once."""

    standardize: bool = True


@dataclass(frozen=True, kw_only=True)
class FullFineTuning:
    """Every parameter is trained; the classifier is new."""

    layer_decay: float = 1.0


@dataclass(frozen=True, kw_only=True)
class LastBlocks:
    """The classifier, which is new, and the blocks before it are trained; what lies below stays as it is."""

    blocks: int = 1
    layer_decay: float = 1.0


Tuning: TypeAlias = LinearHead | FullFineTuning | LastBlocks


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """Folders of class folders, or tar files of them."""

    train: str
    val: str = ""
    test: str = ""
    val_fraction: float = 0.1


@dataclass(frozen=True, kw_only=True)
class TorchvisionDataset:
    """A dataset of torchvision by its name, already on storage."""

    name: str
    root: str
    val_fraction: float = 0.1


@dataclass(frozen=True, kw_only=True)
class ImageManifest:
    """A .csv or .parquet table with a row for each image: where it lies and its class."""

    train: str
    val: str = ""
    test: str = ""
    val_fraction: float = 0.1
    root: str = ""
    path_column: str = "path"
    label_column: str = "label"


@dataclass(frozen=True, kw_only=True)
class WebDataset:
    """Shards as WebDataset writes them, by path or URI, with braces for ranges."""

    train: tuple[str, ...]
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    val_fraction: float = 0.1


Dataset: TypeAlias = ImageFolder | TorchvisionDataset | ImageManifest | WebDataset


class Unreadable(Enum):
    """What becomes of a job whose images cannot all be read."""

    FAIL = 1
    SKIP = 2


class Resize(Enum):
    """How an image of another shape becomes a square."""

    CROP = 1
    SQUASH = 2


class Interpolation(Enum):
    """The filter of a resize."""

    BILINEAR = 1
    BICUBIC = 2


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image becomes a tensor. None or empty: the backbone's own, filled in by the server."""

    image_size: int | None = None
    resize: Resize = Resize.CROP
    crop_fraction: float | None = None
    interpolation: Interpolation | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes of training images."""

    horizontal_flip: bool = False
    min_crop_area: float = 0.0
    color_jitter: float = 0.0
    crop_padding: int = 0
    rand_augment: int = 0
    rand_augment_magnitude: int = 9
    random_erasing: float = 0.0
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Sgd:
    """Stochastic gradient descent."""

    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam (Kingma and Ba 2015)."""

    learning_rate: float = 1e-3
    weight_decay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    learning_rate: float = 1e-3
    weight_decay: float = 0.01


@dataclass(frozen=True, kw_only=True)
class Lamb:
    """LAMB (You et al. 2020)."""

    learning_rate: float = 1e-3
    weight_decay: float = 0.01


@dataclass(frozen=True, kw_only=True)
class Muon:
    """Muon (Jordan et al. 2024), with AdamW at a tenth of the learning rate for what is no hidden matrix."""

    learning_rate: float = 0.01
    momentum: float = 0.95
    weight_decay: float = 0.01


Optimizer: TypeAlias = Sgd | Adam | AdamW | Lamb | Muon


@dataclass(frozen=True, kw_only=True)
class ConstantSchedule:
    """The same learning rate throughout, after the warm-up."""

    warmup_epochs: float = 0.0


@dataclass(frozen=True, kw_only=True)
class CosineSchedule:
    """Half a cosine down to 0, after the warm-up."""

    warmup_epochs: float = 0.0


@dataclass(frozen=True, kw_only=True)
class StepSchedule:
    """Multiplied by a factor every so many epochs."""

    warmup_epochs: float = 0.0
    every_epochs: int = 30
    factor: float = 0.1


Schedule: TypeAlias = ConstantSchedule | CosineSchedule | StepSchedule


class Precision(Enum):
    """The arithmetic of the forward and backward pass."""

    FP32 = 1
    BF16 = 2
    FP16 = 3


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """When and on what the model is evaluated."""

    top_k: tuple[int, ...] = ()
    """The k of the top-k accuracies; empty: 1 to 10 as far as there are classes, filled in by the server."""
    every_epochs: int = 1
    monitor: str = "expected_accuracy"
    every_steps: int = 0
    also_monitor: tuple[str, ...] = ()
    patience: int = 0


@dataclass(frozen=True, kw_only=True)
class CheckpointPolicy:
    """When checkpoints are written and which are kept."""

    every_epochs: int = 1
    every_steps: int = 0
    keep_last: int = 2


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What the job needs to run."""

    gpus: int = 1
    pool: str = "default"
    nodes: int = 1
    gpu_model: str = ""
    min_memory_gib: int = 0

    @property
    def slots(self) -> int:
        """The slots in all, of all machines."""
        return self.nodes * self.gpus


class Priority(Enum):
    """The class in the queue: a higher one goes first, and may take slots from lower ones."""

    LOW = 1
    NORMAL = 2
    HIGH = 3
    URGENT = 4


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """One fine-tuning job.

    >>> spec = JobSpec(
    ...     backbone="resnet50",
    ...     weights=Weights(tag="IMAGENET1K_V2"),
    ...     tuning=LinearHead(),
    ...     dataset=ImageFolder(train="/data/train", test="/data/test"),
    ...     k={1: 0.5, 5: 0.5},
    ...     sorter=OddEven(steepness=2),
    ... )
    >>> spec.batch_size
    128
    """

    backbone: str
    tuning: Tuning
    dataset: Dataset
    sorter: Sorter
    classes: tuple[str, ...] = ()
    unreadable: Unreadable = Unreadable.FAIL
    k: Mapping[int, float] = field(default_factory=lambda: {1: 1.0})
    m: int | None = None
    weights: Weights | None = None
    preprocessing: Preprocessing = Preprocessing()
    augmentation: Augmentation | None = None
    label_smoothing: float = 0.0
    top1_apart: bool = False
    epochs: int = 20
    batch_size: int = 128
    accumulation_steps: int = 1
    optimizer: Optimizer = AdamW()
    gradient_clip_norm: float = 0.0
    ema_decay: float = 0.0
    compile: bool = False
    schedule: Schedule = CosineSchedule()
    precision: Precision = Precision.FP32
    seed: int = 0
    evaluation: Evaluation = Evaluation()
    checkpoints: CheckpointPolicy = CheckpointPolicy()
    resources: Resources = Resources()
    priority: Priority = Priority.NORMAL
    max_duration_seconds: int = 0
    display_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    stall_timeout_seconds: int = 600
