"""What MODEL may name, and what is said about names that are wrong."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from whyprune.errors import FormatError, InputError, MissingDependencyError
from whyprune.models import load_model

MODULE = """
from torch import nn

def bare():
    return nn.Linear(2, 5)

def sized(num_classes=2, *, image_shape=(1, 1, 1)):
    return nn.Linear(image_shape[0], num_classes)

def function():
    return len

class Net(nn.Linear):
    def __init__(self, num_classes):
        super().__init__(1, num_classes)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    name = "model_under_test"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield name
    sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("factory", "num_classes", "image_shape", "shape"),
    [
        ("bare", 3, (3, 8, 8), (5, 2)),
        ("sized", 3, (4, 8, 8), (3, 4)),
        ("sized", None, None, (2, 1)),
        ("Net", 6, (3, 8, 8), (6, 1)),
    ],
)
def test_a_factory_is_told_what_it_asks_for(module, factory, num_classes, image_shape, shape):
    model = load_model(f"{module}:{factory}", num_classes=num_classes, image_shape=image_shape)
    assert model.weight.shape == shape
    assert not model.training


@pytest.mark.parametrize(
    ("factory", "message"), [("function", "returned a builtin"), ("none", "none"), ("Net", "num_classes")]
)
def test_factories_that_give_no_model_are_refused(module, factory, message):
    with pytest.raises(InputError, match=message):
        load_model(f"{module}:{factory}", num_classes=None, image_shape=None)


@pytest.mark.parametrize(
    ("name", "near"), [("resnet-56", "resnet56"), ("vgg16", "vgg16_bn"), ("mobilenetv2", "mobilenet_v2")]
)
def test_unknown_names_are_answered_with_the_nearest(name, near):
    with pytest.raises(InputError, match=f"did you mean {near}"):
        load_model(name, num_classes=10, image_shape=None)


@pytest.mark.parametrize("name", ["", "qqqq", "timm:", "transformers:", "a/b:c"])
def test_names_like_no_other_are_answered_with_all(name):
    with pytest.raises(InputError, match=r"no model .*package\.module:factory"):
        load_model(name, num_classes=10, image_shape=None)


def test_sizes_that_cannot_work_are_refused():
    with pytest.raises(InputError, match="at least 32x32 pixels, the data has 8x8"):
        load_model("vgg16_bn", num_classes=10, image_shape=(1, 8, 8))
    with pytest.raises(InputError, match="num_classes is 0"):
        load_model("resnet20", num_classes=0, image_shape=None)


@pytest.mark.parametrize(("spec", "extra"), [("timm:resnet18", "timm"), ("transformers:x", "transformers")])
def test_without_the_library_the_extra_is_named(monkeypatch, spec, extra):
    monkeypatch.setitem(sys.modules, extra, None)
    with pytest.raises(MissingDependencyError, match=rf"whyprune\[{extra}\]"):
        load_model(spec, num_classes=10, image_shape=None)


def test_a_torchvision_for_another_torch_is_named(tmp_path, monkeypatch):
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(MissingDependencyError, match=r"nms does not exist.*a torchvision built for"):
        load_model("timm:resnet18", num_classes=10, image_shape=None)


@pytest.fixture
def timm(monkeypatch):
    """A stand-in with timm's signature; its one network has 1000 published classes."""

    def create_model(model_name, pretrained=False, *, num_classes=1000, in_chans=3):
        if model_name != "net":
            raise RuntimeError(f"Unknown model ({model_name})")
        made = nn.Conv2d(in_chans, num_classes, 1)
        made.num_classes = num_classes
        nn.init.constant_(made.weight, 1.0 if pretrained else 0.0)
        return made

    library = ModuleType("timm")
    library.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", library)


def test_timm_gives_published_or_fresh_weights(timm):
    published = load_model("timm:net", num_classes=1000, image_shape=(3, 8, 8))
    fresh = load_model("timm:net", num_classes=10, image_shape=(1, 8, 8), pretrained=False)
    assert published.weight.shape == (1000, 3, 1, 1)
    assert published.weight.min() == 1
    assert fresh.weight.shape == (10, 1, 1, 1)
    assert fresh.weight.max() == 0


def test_timm_networks_that_do_not_fit_are_refused(timm):
    with pytest.raises(InputError, match="1000 classes, the data has 10"):
        load_model("timm:net", num_classes=10, image_shape=(3, 8, 8))
    with pytest.raises(InputError, match="Unknown model"):
        load_model("timm:nothing", num_classes=10, image_shape=(3, 8, 8))


@pytest.fixture
def classifier():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=8,
        patch_size=4,
        num_labels=4,
    )
    return transformers.ViTForImageClassification(config).eval()


def test_transformers_from_a_folder_computes_the_same(classifier, tmp_path):
    classifier.save_pretrained(tmp_path)
    loaded = load_model(f"transformers:{tmp_path}", num_classes=4, image_shape=(3, 8, 8))
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(loaded(x).logits, classifier(x).logits, atol=1e-6)
    assert type(loaded) is type(classifier)
    with pytest.raises(InputError, match="4 classes, the data has 10"):
        load_model(f"transformers:{tmp_path}", num_classes=10, image_shape=(3, 8, 8))


def test_transformers_from_a_configuration_alone_is_fresh(classifier, tmp_path):
    classifier.config.save_pretrained(tmp_path)
    loaded = load_model(f"transformers:{tmp_path}", num_classes=None, image_shape=None)
    assert {k: v.shape for k, v in loaded.state_dict().items()} == {
        k: v.shape for k, v in classifier.state_dict().items()
    }


def test_transformers_without_a_trained_head_is_refused(classifier, tmp_path):
    classifier.vit.save_pretrained(tmp_path)
    classifier.config.save_pretrained(tmp_path)
    with pytest.raises(FormatError, match=r"no weights for classifier"):
        load_model(f"transformers:{tmp_path}", num_classes=None, image_shape=None)


def test_transformers_never_reads_a_pickle(classifier, tmp_path):
    classifier.config.save_pretrained(tmp_path)
    torch.save(classifier.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(f"transformers:{tmp_path}", num_classes=None, image_shape=None)


def test_transformers_names_that_are_not_here_are_refused(classifier):
    with pytest.raises(InputError, match="hf download"):
        load_model("transformers:nobody/nothing", num_classes=None, image_shape=None)
