"""The model families; importing this package registers all named models."""

from cvcc_zoo.models.cnn import CNN
from cvcc_zoo.models.fcnn import FCNN
from cvcc_zoo.models.initialisation import lsuv
from cvcc_zoo.models.linear import Linear
from cvcc_zoo.models.resnet import ResNet
from cvcc_zoo.models.resnext import ResNeXt
from cvcc_zoo.models.timm import Timm
from cvcc_zoo.models.wide_resnet import WideResNet

__all__ = ["CNN", "FCNN", "Linear", "ResNeXt", "ResNet", "Timm", "WideResNet", "lsuv"]
