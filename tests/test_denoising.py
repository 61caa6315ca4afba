"""denoising: what reaches the network, dtypes and devices, equality with diffusers on guidance, faults."""

import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from ldm.denoising import Condition, Denoiser, condition, guided, stacked
from ldm.noising import Diffusion

B, C, H, W, L, D = 2, 4, 8, 8, 5, 16


def randn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def text_unet(channels=C, **options):
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=H,
        in_channels=channels,
        out_channels=C,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        cross_attention_dim=D,
        attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        **options,
    ).eval()


def plain_unet(**options):
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=H,
        in_channels=C,
        out_channels=C,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        **options,
    ).eval()


class Spy:
    """A network that remembers what it was shown, and answers with a mix of it."""

    def __init__(self):
        self.calls = []

    def __call__(self, x, t, encoder_hidden_states=None, class_labels=None):
        self.calls.append((x, t, encoder_hidden_states, class_labels))
        output = x[:, :C] * 0.5 + t.reshape(-1, 1, 1, 1) * 1e-3
        if encoder_hidden_states is None:
            return output
        return output * encoder_hidden_states.mean((1, 2)).reshape(-1, 1, 1, 1)


z_t, text, null = randn(0, B, C, H, W), randn(1, B, L, D), randn(2, B, L, D)


# Networks.


@torch.no_grad()
@pytest.mark.parametrize("t", [1, 500, 1000, 333.25])
def test_a_text_unet_is_asked_as_diffusers_asks_it(t):
    unet = text_unet()
    expected = unet(z_t, torch.tensor(t - 1), encoder_hidden_states=text).sample
    torch.testing.assert_close(Denoiser(unet, Diffusion()).output(z_t, t, text), expected, atol=0, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("t", [1, 500, 333.25])
def test_an_unconditional_unet_at_whole_and_fractional_times(t):
    unet = plain_unet()
    expected = unet(z_t, torch.tensor(t - 1)).sample
    torch.testing.assert_close(Denoiser(unet, Diffusion()).output(z_t, t), expected, atol=0, rtol=0)
    assert not torch.equal(expected, unet(z_t, torch.tensor(int(t))).sample)


@torch.no_grad()
def test_concatenation_and_labels():
    unet, mask = text_unet(C + 3), randn(3, B, 3, H, W)
    expected = unet(torch.cat([z_t, mask], 1), torch.tensor(9), encoder_hidden_states=text).sample
    found = Denoiser(unet, Diffusion()).output(z_t, 10, Condition(text=text, concat=mask))
    torch.testing.assert_close(found, expected, atol=0, rtol=0)

    unet, label = plain_unet(num_class_embeds=3), torch.tensor([0, 2])
    expected = unet(z_t, torch.tensor(9), class_labels=label).sample
    found = Denoiser(unet, Diffusion()).output(z_t, 10, Condition(label=label))
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


def test_a_function_is_a_network_and_sees_only_what_is_there():
    spy = Spy()
    Denoiser(spy, Diffusion()).output(z_t, torch.tensor([1, 1000]), Condition(label=torch.tensor([1, 2])))
    (x, t, states, labels) = spy.calls[0]
    assert torch.equal(x, z_t) and t.tolist() == [0, 999] and states is None and labels.tolist() == [1, 2]
    Denoiser(spy, Diffusion()).output(z_t, 7)
    assert spy.calls[1][1].tolist() == [6, 6]
    assert torch.equal(Denoiser(lambda x, t: x * 2, Diffusion()).output(z_t, 7), z_t * 2)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_calling_is_recovering(prediction):
    process = Diffusion(prediction_type=prediction)
    denoiser = Denoiser(Spy(), process)
    for t in (300, torch.tensor([5, 999])):
        expected = process.recover(z_t, t, denoiser.output(z_t, t, text))
        assert torch.equal(denoiser(z_t, t, text), expected) and expected.shape == z_t.shape


def test_a_network_that_knows_eps_gives_z_0():
    process, z_0, eps = Diffusion(), randn(4, B, C, H, W), randn(5, B, C, H, W)
    denoiser = Denoiser(lambda x, t: eps, process)
    torch.testing.assert_close(denoiser(process.noise(z_0, 200, eps), 200), z_0, atol=1e-5, rtol=0)


# Dtypes and devices.


@torch.no_grad()
def test_the_network_keeps_its_dtype_and_the_answer_is_single():
    denoiser = Denoiser(text_unet(), Diffusion())
    assert denoiser.to(dtype=torch.bfloat16) is denoiser
    assert denoiser.unet.dtype == torch.bfloat16 and denoiser.device.type == "cpu"
    assert denoiser.output(z_t, 500, text).dtype == torch.float32
    assert denoiser(z_t.half(), 500, text).dtype == torch.float32
    assert denoiser(z_t.double(), 500, text).dtype == torch.float64
    expected = denoiser.unet(z_t.bfloat16(), torch.tensor(499), text.bfloat16()).sample.float()
    torch.testing.assert_close(denoiser.output(z_t, 500, text), expected, atol=0, rtol=0)


def test_a_plain_function_has_nothing_to_move():
    denoiser = Denoiser(Spy(), Diffusion())
    assert denoiser.to("cpu", torch.float16) is denoiser and denoiser.device.type == "cpu"
    assert denoiser.output(z_t.double(), 3).dtype == torch.float64


@torch.no_grad()
def test_a_network_on_another_device_is_sent_everything():
    network = torch.nn.Conv2d(C, C, 1).to("meta")

    def forward(x, t, encoder_hidden_states, class_labels):
        assert {a.device.type for a in (x, t, encoder_hidden_states, class_labels)} == {"meta"}
        return x

    network.forward = forward
    denoiser = Denoiser(network, Diffusion())
    cond = Condition(text=text, label=torch.tensor([0, 1]))
    with pytest.raises(NotImplementedError):  # the way back: nothing can be copied out of the meta device
        denoiser.output(z_t, torch.tensor([1, 2]), cond)


# Conditions.


def test_conditions():
    assert condition(text).text is text and condition(None).text is None
    both = stacked(Condition(text=null), Condition(text=text, concat=z_t, label=torch.tensor([3, 4])))
    assert torch.equal(both.text, torch.cat([null, text])), "null comes first"
    assert torch.equal(both.concat, torch.cat([z_t, z_t])) and both.label.tolist() == [3, 4, 3, 4]
    assert torch.equal(stacked(null[:1], text).text[:B], null[:1].expand(B, L, D)), "one null row serves all"
    assert stacked(None, None).text is None
    assert stacked(null, text.half()).text.dtype == torch.float16


# Guidance.


@torch.no_grad()
@pytest.mark.parametrize("rescale", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("scale", [0.0, 0.5, 7.5])
def test_guidance_equals_diffusers(scale, rescale):
    unet = text_unet()
    plain = [unet(z_t, torch.tensor(499), encoder_hidden_states=c).sample for c in (null, text)]
    expected = plain[0] + scale * (plain[1] - plain[0])
    expected = rescale_noise_cfg(expected, plain[1], rescale)
    denoiser = guided(Denoiser(unet, Diffusion()), null, scale, rescale=rescale)
    torch.testing.assert_close(denoiser.output(z_t, 500, text), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(denoiser(z_t, 500, text), Diffusion().recover(z_t, 500, expected), atol=1e-4, rtol=0)


def test_guidance_is_one_call_null_first():
    spy = Spy()
    guided(Denoiser(spy, Diffusion()), null, 3.0).output(z_t, 500, text)
    [(x, t, states, _)] = spy.calls
    assert torch.equal(x, torch.cat([z_t, z_t])) and torch.equal(states, torch.cat([null, text]))
    assert t.tolist() == [499] * 2 * B


def test_scale_one_never_asks_the_null_half():
    spy = Spy()
    denoiser = Denoiser(spy, Diffusion())
    assert torch.equal(guided(denoiser, null, 1).output(z_t, 500, text), denoiser.output(z_t, 500, text))
    assert [len(x) for x, *_ in spy.calls] == [B, B]


@pytest.mark.parametrize("t, asked", [(299, B), (300, 2 * B), (450.5, 2 * B), (700, 2 * B), (701, B), (1000, B)])
def test_the_interval_is_a_fraction_of_time_both_ends_in(t, asked):
    spy = Spy()
    denoiser = Denoiser(spy, Diffusion())
    found = guided(denoiser, null, 5.0, interval=(0.3, 0.7)).output(z_t, t, text)
    assert len(spy.calls[0][0]) == asked
    expected = denoiser if asked == B else guided(denoiser, null, 5.0)
    assert torch.equal(found, expected.output(z_t, t, text))


def test_each_row_is_guided_at_its_own_time():
    denoiser = Denoiser(Spy(), Diffusion())
    found = guided(denoiser, null, 5.0, interval=(0.3, 0.7)).output(z_t, torch.tensor([500, 900]), text)
    assert torch.equal(found[:1], guided(denoiser, null[:1], 5.0).output(z_t[:1], 500, text[:1]))
    assert torch.equal(found[1:], denoiser.output(z_t[1:], 900, text[1:]))


def test_guidance_wraps_guidance():
    plain, one = Denoiser(Spy(), Diffusion()), null[:1]
    twice = guided(guided(plain, one, 2.0), one, 2.0).output(z_t, 500, text)
    torch.testing.assert_close(twice, guided(plain, one, 4.0).output(z_t, 500, text))


@pytest.mark.parametrize("scale", [-1, float("nan"), float("inf")])
def test_scales_out_of_range_are_refused(scale):
    with pytest.raises(ValueError, match="guidance scale"):
        guided(Denoiser(Spy(), Diffusion()), null, scale)


@pytest.mark.parametrize("interval", [(-0.1, 1), (0, 1.1), (0.7, 0.3), (float("nan"), 1)])
def test_intervals_out_of_range_are_refused(interval):
    with pytest.raises(ValueError, match="guidance interval"):
        guided(Denoiser(Spy(), Diffusion()), null, 2.0, interval=interval)


@pytest.mark.parametrize("rescale", [-0.1, 1.1, float("nan")])
def test_rescales_out_of_range_are_refused(rescale):
    with pytest.raises(ValueError, match="guidance rescale"):
        guided(Denoiser(Spy(), Diffusion()), null, 2.0, rescale=rescale)
