"""The linear readout by hand."""

import torch

from readouts.heads import LinearReadout


def test_reads_the_mean_token() -> None:
    head = LinearReadout(channels=2, n_outputs=1)
    with torch.no_grad():
        head.classifier.weight.copy_(torch.tensor([[1.0, 10.0]]))
        head.classifier.bias.fill_(0.5)
    # One clip, two steps of one token: (1, 2) and (3, 6); the mean is (2, 4), so 2 + 40 + 0.5.
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 6.0]]]])
    assert head(features).tolist() == [[42.5]]


def test_the_mean_of_half_precision_tokens_has_single_precision() -> None:
    head = LinearReadout(channels=1, n_outputs=1)
    torch.nn.init.ones_(head.classifier.weight)
    # 1 and the next float16, 1 + 2^-10: their mean is no float16.
    features = torch.tensor([1.0, 1.0 + 2**-10], dtype=torch.float16).reshape(1, 2, 1, 1)
    assert head(features).item() == 1.0 + 2**-11
