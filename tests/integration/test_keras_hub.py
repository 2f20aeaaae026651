"""Models of KerasHub, where it is installed: every ReLU that runs is counted, against brute force."""

import function_oracle
import numpy as np
import pytest
import tensorflow as tf

from relu_probe import measure

hub = pytest.importorskip("keras_hub", reason="KerasHub is an optional test: pip install keras-hub")
pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(tf.keras.__name__.startswith("tf_keras"), reason="KerasHub needs Keras 3"),
    pytest.mark.filterwarnings("ignore"),
]
IMAGES = np.random.default_rng(0).standard_normal((1, 64, 64, 3)).astype("f")


def retina_net():
    encoder = hub.models.ResNetBackbone(
        [64], [7], [64, 128, 256, 512], [1, 1, 1, 1], [1, 2, 2, 2], "basic_block", use_pre_activation=False,
        image_shape=(64, 64, 3),
    )  # fmt: skip
    pyramid = hub.models.RetinaNetBackbone(encoder, 3, 7, use_p5=False, image_shape=(64, 64, 3))
    return hub.models.RetinaNetObjectDetector(pyramid, 3, "channels_last"), IMAGES


def d_fine():
    stages = [[16, 16, 64, 1, 3, 3], [64, 32, 256, 1, 3, 3], [256, 64, 512, 2, 3, 5], [512, 128, 1024, 1, 3, 5]]
    encoder = hub.models.HGNetV2Backbone(
        depths=[1, 1, 2, 1], embedding_size=16, hidden_sizes=[64, 256, 512, 1024], stem_channels=[3, 16, 16],
        hidden_act="relu", use_learnable_affine_block=True, image_shape=(64, 64, 3), out_features=["stage3", "stage4"],
        stackwise_stage_filters=stages, apply_downsample=[False, True, True, True],
        use_lightweight_conv_block=[False, False, True, True], data_format="channels_last",
    )  # fmt: skip
    model = hub.models.DFineBackbone(
        backbone=encoder, decoder_in_channels=[128, 128], encoder_hidden_dim=128, num_denoising=0, num_labels=4,
        hidden_dim=128, learn_initial_query=False, num_queries=10, anchor_image_size=(64, 64), feat_strides=[16, 32],
        num_feature_levels=2, encoder_in_channels=[512, 1024], encode_proj_layers=[1], num_attention_heads=8,
        encoder_ffn_dim=64, num_encoder_layers=1, hidden_expansion=0.34, depth_multiplier=0.5, eval_idx=-1,
        num_decoder_layers=2, decoder_attention_heads=8, decoder_ffn_dim=64, decoder_n_points=[6, 6],
        lqe_hidden_dim=16, num_lqe_layers=2, out_features=["stage3", "stage4"], image_shape=(64, 64, 3),
        data_format="channels_last", seed=0,
    )  # fmt: skip
    return model, IMAGES


def sam():
    encoder = hub.models.ViTDetBackbone(
        hidden_size=16, num_layers=2, intermediate_dim=64, num_heads=4, global_attention_layer_indices=[1],
        patch_size=16, num_output_channels=8, window_size=2, image_shape=(64, 64, 3),
    )  # fmt: skip
    prompts = hub.layers.SAMPromptEncoder(
        hidden_size=8, image_embedding_size=(4, 4), input_image_size=(64, 64), mask_in_channels=16
    )
    masks = hub.layers.SAMMaskDecoder(
        num_layers=2, hidden_size=8, intermediate_dim=32, num_heads=4, embedding_dim=8, num_multimask_outputs=3,
        iou_head_depth=3, iou_head_hidden_dim=8,
    )  # fmt: skip
    model = hub.models.SAMImageSegmenter(hub.models.SAMBackbone(encoder, prompts, masks))
    points, labels = np.full((1, 1, 2), 9.0, "f"), np.ones((1, 1), "f")
    boxes, no_masks = np.array([[[[1, 1], [40, 50]]]], "f"), np.zeros((1, 0, 64, 64, 1), "f")
    return model, {"images": IMAGES, "points": points, "labels": labels, "boxes": boxes, "masks": no_masks}


def t5():
    model = hub.models.T5Backbone(50, 2, 2, 8, 16, activation="relu", use_gated_activation=False)
    ids, mask = np.arange(10)[None], np.ones((1, 10), int)
    names = ("encoder_token_ids", "encoder_padding_mask", "decoder_token_ids", "decoder_padding_mask")
    return model, dict(zip(names, (ids, mask, ids, mask)))


@pytest.mark.parametrize("make", [retina_net, d_fine, sam, t5])
def test_every_relu_of_the_model_is_counted_or_named(make):
    """A layer that runs several times has the sum of its counts, so the sums over the whole model are compared."""
    tf.keras.utils.set_random_seed(0)
    model, x = make()
    with tf.GradientTape() as tape, function_oracle.recorded(tape) as runs:
        model(tf.nest.map_structure(tf.constant, x), training=False)
    report, outputs = measure(model, x), [np.asarray(run.output) for run in runs]
    if make is d_fine:  # clamps the coordinates of boxes, which are no neurons
        assert list(report.unseen) == ["decoder/relu"]
        outputs = [output for output in outputs if output.shape != (1, 10, 4)]
    else:
        assert dict(report.unseen) == {}
    layers = report.layers.values()
    assert sum(layer.positions * layer.neurons for layer in layers) == sum(map(np.size, outputs))
    assert sum(layer.active.sum() for layer in layers) == sum((output > 0).sum() for output in outputs)
