//! The names of every family: names in libraries' files are mapped to the encoder's names, with the right shapes and
//! numbers.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_model::weights::Report;
use antiphon_model::weights::file::Tensors;
use antiphon_model::weights::names::{Family, Own, Translated, translate};
use candle_core::{DType, Device, Tensor};

use super::support::{Named, Shapes, check, flat, folder, shapes, tensor, tensors};

/// Names and shapes in a library's file.
fn library(case: &str) -> Shapes {
    let text = std::fs::read_to_string(folder().join("names.json")).expect("it is there");
    let mut cases: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_str(&text).expect("JSON");
    let sizes = |text: &str| text.split_whitespace().map(|size| size.parse().expect("a size")).collect();
    cases.remove(case).expect(case).into_iter().map(|(name, shape)| (name, sizes(&shape))).collect()
}

const WIDTH: usize = 8;

/// timm's names.
fn vit(blocks: usize, channels: usize, tokens: usize, patch: usize) -> Shapes {
    let mut own = shapes(&[
        ("cls_token", &[1, 1, WIDTH]),
        ("pos_embed", &[1, tokens, WIDTH]),
        ("patch_embed.proj.weight", &[WIDTH, channels, patch, patch]),
        ("patch_embed.proj.bias", &[WIDTH]),
        ("norm.weight", &[WIDTH]),
        ("norm.bias", &[WIDTH]),
        ("adapter.weight", &[6, WIDTH]),
        ("adapter.bias", &[6]),
    ]);
    for block in 0..blocks {
        let linear = [("attn.qkv", 24, 8), ("attn.proj", 8, 8), ("mlp.fc1", 32, 8), ("mlp.fc2", 8, 32)];
        for (name, out, into) in linear {
            own.insert(format!("blocks.{block}.{name}.weight"), vec![out, into]);
            own.insert(format!("blocks.{block}.{name}.bias"), vec![out]);
        }
        for name in ["norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"] {
            own.insert(format!("blocks.{block}.{name}"), vec![WIDTH]);
        }
    }
    own
}

/// Hugging Face's names with query, key and value in one.
fn bert() -> Shapes {
    let fused = library("bert, transformers").into_iter().filter_map(|(name, shape)| {
        let name = name.strip_prefix("bert.")?.to_owned();
        let rest = ["attention.self.key", "attention.self.value", "pooler"];
        if rest.iter().any(|word| name.contains(word)) {
            return None;
        }
        let fused = if name.contains("query") { [&[24], &shape[1..]].concat() } else { shape };
        Some((name.replace("self.query", "self.qkv"), fused))
    });
    fused.chain(shapes(&[("adapter.weight", &[6, WIDTH]), ("adapter.bias", &[6])])).collect()
}

/// torchvision's names without the classifier.
fn resnet(kind: &str) -> Shapes {
    let mut own = library(&format!("resnet {kind}, torchvision"));
    own.retain(|name, _| !name.starts_with("fc.") && !name.ends_with("num_batches_tracked"));
    own
}

fn translated(family: Family, own: &Shapes, file: Named) -> Translated {
    translate(family, &Own::new(own.clone()), Tensors { floats: file, ..Tensors::default() })
}

/// Checks that every name except the adapter's is found, with its shape and unique content.
fn complete(family: Family, own: &Shapes, file: Named) -> Named {
    let Translated { tensors, report } = translated(family, own, file);
    assert!(report.is_complete(), "{report}");
    let required = own.keys().filter(|name| !name.starts_with("adapter.")).count();
    assert_eq!(report.loaded, required);
    let firsts: BTreeSet<u32> = tensors.values().map(|tensor| flat(tensor)[0].to_bits()).collect();
    assert_eq!(firsts.len(), required, "two are of one tensor");
    tensors
}

fn under(prefix: &str, file: &Shapes) -> Named {
    file.iter().map(|(name, shape)| (format!("{prefix}{name}"), tensor(name, shape))).collect()
}

/// The encoder's names with the library's names whose numbers they have.
fn same(tensors: &Named, file: &Shapes, pairs: &[(&str, &str)]) {
    for (own, foreign) in pairs {
        assert_eq!(flat(&tensors[*own]), flat(&tensor(foreign, &file[*foreign])), "{own} is {foreign}");
    }
}

/// The library's names of the rows of query, key and value, in this order.
fn stacked(tensors: &Named, file: &Shapes, own: &str, thirds: [&str; 3]) {
    let expected: Vec<f32> = thirds.iter().flat_map(|name| flat(&tensor(name, &file[*name]))).collect();
    assert_eq!(flat(&tensors[own]), expected, "{own}");
}

#[test]
fn residual_networks() {
    for kind in ["basic", "bottleneck"] {
        let own = resnet(kind);
        let file = library(&format!("resnet {kind}, torchvision"));
        for prefix in ["", "module.", "backbone.", "module.encoder_q.", "model.resnet."] {
            let loaded = complete(Family::Resnet, &own, under(prefix, &file));
            assert_eq!(flat(&loaded["layer2.0.bn2.running_var"]), flat(&tensor("layer2.0.bn2.running_var", &[128])));
        }
        let file = library(&format!("resnet {kind}, transformers"));
        let prefix = if kind == "basic" { "resnet." } else { "" };
        let loaded = complete(Family::Resnet, &own, tensors(&file));
        let pairs = [
            ("conv1.weight", "embedder.embedder.convolution.weight"),
            ("bn1.running_mean", "embedder.embedder.normalization.running_mean"),
            ("layer1.1.conv2.weight", "encoder.stages.0.layers.1.layer.1.convolution.weight"),
            ("layer3.0.bn1.bias", "encoder.stages.2.layers.0.layer.0.normalization.bias"),
            ("layer4.0.downsample.0.weight", "encoder.stages.3.layers.0.shortcut.convolution.weight"),
            ("layer4.0.downsample.1.running_var", "encoder.stages.3.layers.0.shortcut.normalization.running_var"),
        ];
        let pairs = pairs.map(|(own, foreign)| (own, format!("{prefix}{foreign}")));
        same(&loaded, &file, &pairs.each_ref().map(|(own, foreign)| (*own, foreign.as_str())));
    }
}

#[test]
fn vision_transformers() {
    let own = vit(2, 3, 5, 16);
    let mut file = own.clone();
    file.retain(|name, _| !name.starts_with("adapter."));
    file.extend(shapes(&[
        ("head.weight", &[3, 8]),
        ("decoder_blocks.0.norm1.weight", &[8]),
        ("mask_token", &[1, 1, 8]),
    ]));
    for prefix in ["", "model.", "module.encoder."] {
        complete(Family::Vit, &own, under(prefix, &file));
    }

    let file = library("vit, torchvision");
    let loaded = complete(Family::Vit, &own, tensors(&file));
    let pairs = [
        ("cls_token", "class_token"),
        ("pos_embed", "encoder.pos_embedding"),
        ("patch_embed.proj.weight", "conv_proj.weight"),
        ("blocks.1.norm1.weight", "encoder.layers.encoder_layer_1.ln_1.weight"),
        ("blocks.1.attn.qkv.weight", "encoder.layers.encoder_layer_1.self_attention.in_proj_weight"),
        ("blocks.0.attn.proj.bias", "encoder.layers.encoder_layer_0.self_attention.out_proj.bias"),
        ("blocks.0.norm2.bias", "encoder.layers.encoder_layer_0.ln_2.bias"),
        ("blocks.0.mlp.fc1.weight", "encoder.layers.encoder_layer_0.mlp.0.weight"),
        ("blocks.0.mlp.fc2.weight", "encoder.layers.encoder_layer_0.mlp.3.weight"),
        ("norm.bias", "encoder.ln.bias"),
    ];
    same(&loaded, &file, &pairs);
    let older = |(name, shape): (String, Vec<usize>)| {
        (name.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"), shape)
    };
    complete(Family::Vit, &own, tensors(&file.into_iter().map(older).collect()));
}

#[test]
fn vision_transformers_of_hugging_face() {
    let own = vit(2, 3, 5, 16);
    let file = library("vit, transformers");
    let loaded = complete(Family::Vit, &own, tensors(&file));
    let pairs = [
        ("cls_token", "vit.embeddings.cls_token"),
        ("pos_embed", "vit.embeddings.position_embeddings"),
        ("patch_embed.proj.bias", "vit.embeddings.patch_embeddings.projection.bias"),
        ("blocks.1.attn.proj.weight", "vit.encoder.layer.1.attention.output.dense.weight"),
        ("blocks.1.norm1.bias", "vit.encoder.layer.1.layernorm_before.bias"),
        ("blocks.1.norm2.bias", "vit.encoder.layer.1.layernorm_after.bias"),
        ("blocks.0.mlp.fc1.weight", "vit.encoder.layer.0.intermediate.dense.weight"),
        ("blocks.0.mlp.fc2.weight", "vit.encoder.layer.0.output.dense.weight"),
        ("norm.weight", "vit.layernorm.weight"),
    ];
    same(&loaded, &file, &pairs);
    let within =
        |last| ["query", "key", "value"].map(|of| format!("vit.encoder.layer.1.attention.attention.{of}.{last}"));
    stacked(&loaded, &file, "blocks.1.attn.qkv.weight", within("weight").each_ref().map(String::as_str));
    stacked(&loaded, &file, "blocks.1.attn.qkv.bias", within("bias").each_ref().map(String::as_str));
    let bare = file.iter().filter_map(|(name, shape)| Some((name.strip_prefix("vit.")?.to_owned(), shape.clone())));
    complete(Family::Vit, &own, tensors(&bare.collect()));

    let file = library("vit, transformers in memory");
    let loaded = complete(Family::Vit, &own, tensors(&file));
    let thirds = [
        "vit.layers.0.attention.q_proj.bias",
        "vit.layers.0.attention.k_proj.bias",
        "vit.layers.0.attention.v_proj.bias",
    ];
    stacked(&loaded, &file, "blocks.0.attn.qkv.bias", thirds);
}

#[test]
fn a_distillation_token_is_ignored_and_adds_a_position() {
    // Two tokens that are not patches, and six patches.
    let Translated { report, .. } = translated(Family::Vit, &vit(2, 1, 7, 16), tensors(&library("ast, transformers")));
    check("ast", &report.to_string());
}

/// The published model with width eight: eleven blocks for each branch, and one shared block.
fn cav_mae() -> Shapes {
    let mut file = Shapes::new();
    for branch in ["a", "v"] {
        let (patches, channels) = if branch == "a" { (8, 1) } else { (4, 3) };
        file.insert(format!("patch_embed_{branch}.proj.weight"), vec![WIDTH, channels, 16, 16]);
        file.insert(format!("patch_embed_{branch}.proj.bias"), vec![WIDTH]);
        file.insert(format!("modality_{branch}"), vec![1, 1, WIDTH]);
        file.insert(format!("pos_embed_{branch}"), vec![1, patches, WIDTH]);
        file.insert(format!("decoder_modality_{branch}"), vec![1, 1, 4]);
        file.insert(format!("decoder_pos_embed_{branch}"), vec![1, patches, 4]);
        file.insert(format!("decoder_pred_{branch}.weight"), vec![256, 4]);
    }
    for norm in ["norm", "norm_a", "norm_v", "decoder_norm"] {
        file.insert(format!("{norm}.weight"), vec![WIDTH]);
        file.insert(format!("{norm}.bias"), vec![WIDTH]);
    }
    let blocks =
        (0..11).flat_map(|n| [format!("blocks_a.{n}"), format!("blocks_v.{n}")]).chain(["blocks_u.0".to_owned()]);
    for block in blocks {
        for (name, shape) in vit(1, 1, 1, 1) {
            let Some(name) = name.strip_prefix("blocks.0.") else { continue };
            file.insert(format!("{block}.{name}"), shape.clone());
            for branch in ["a", "v"].iter().filter(|_| name.starts_with("norm")) {
                file.insert(format!("{block}.{}", name.replacen('.', &format!("_{branch}."), 1)), shape.clone());
            }
        }
    }
    file.extend(shapes(&[("mask_token", &[1, 1, 4]), ("decoder_embed.weight", &[4, 8]), ("mlp_head.0.weight", &[8])]));
    file
}

#[test]
fn each_branch_of_cav_mae_goes_to_an_encoder_of_its_channels() {
    let file = cav_mae();
    for (branch, channels, tokens) in [("a", 1, 9), ("v", 3, 5)] {
        let Translated { tensors, report } =
            translated(Family::Vit, &vit(12, channels, tokens, 16), under("module.", &file));
        assert_eq!(
            (report.missing.as_slice(), report.unexpected.len(), report.unlike.len()),
            (&["cls_token".to_owned()][..], 0, 0)
        );
        let named = |text: &str| text.replace('@', branch);
        for (own, foreign) in [
            ("patch_embed.proj.weight", "patch_embed_@.proj.weight"),
            ("blocks.10.norm1.weight", "blocks_@.10.norm1.weight"),
            ("blocks.0.attn.qkv.weight", "blocks_@.0.attn.qkv.weight"),
            ("blocks.11.norm1.weight", "blocks_u.0.norm1_@.weight"),
            ("blocks.11.norm2.bias", "blocks_u.0.norm2_@.bias"),
            ("blocks.11.mlp.fc2.bias", "blocks_u.0.mlp.fc2.bias"),
            ("norm.weight", "norm_@.weight"),
        ] {
            same(&tensors, &file, &[(own, &named(foreign))]);
        }
        let (positions, mark) = (named("pos_embed_@"), named("modality_@"));
        let marked =
            tensor(&positions, &file[&positions]).broadcast_add(&tensor(&mark, &[1, 1, WIDTH])).expect("a sum");
        assert_eq!(flat(&tensors["pos_embed"]), [vec![0.0; WIDTH], flat(&marked)].concat());
    }
}

/// Names after conversion to PyTorch, and Flax's own, of the same tensors.
fn m3ae() -> Vec<(String, String, Vec<usize>)> {
    let mut file = vec![
        ("cls_token".to_owned(), "cls_token".to_owned(), vec![1, 1, WIDTH]),
        ("image_embedding.weight".to_owned(), "image_embedding.kernel".to_owned(), vec![WIDTH, 12]),
        ("image_embedding.bias".to_owned(), "image_embedding.bias".to_owned(), vec![WIDTH]),
        ("text_embedding.weight".to_owned(), "text_embedding.embedding".to_owned(), vec![50, WIDTH]),
        ("encoder.layer_norm.weight".to_owned(), "encoder.LayerNorm_0.scale".to_owned(), vec![WIDTH]),
        ("encoder.layer_norm.bias".to_owned(), "encoder.LayerNorm_0.bias".to_owned(), vec![WIDTH]),
        ("decoder.layer_norm.bias".to_owned(), "decoder.LayerNorm_0.bias".to_owned(), vec![4]),
        ("decoder_input_projection.bias".to_owned(), "decoder_input_projection.bias".to_owned(), vec![4]),
    ];
    for name in
        ["encoder_image_type_embedding", "encoder_text_type_embedding", "image_mask_embedding", "text_mask_embedding"]
    {
        file.push((name.to_owned(), name.to_owned(), vec![1, 1, WIDTH]));
    }
    let linear = [
        ("attention.qkv_linear", "Attention_0.Dense_0", vec![24, 8]),
        ("attention.fc", "Attention_0.Dense_1", vec![8, 8]),
        ("transformer_mlp.fc1", "TransformerMLP_0.fc1", vec![32, 8]),
        ("transformer_mlp.fc2", "TransformerMLP_0.fc2", vec![8, 32]),
    ];
    for block in 0..2 {
        let (torch, flax) = (format!("encoder.blocks.{block}"), format!("encoder.Block_{block}"));
        for (one, other, shape) in &linear {
            file.push((format!("{torch}.{one}.weight"), format!("{flax}.{other}.kernel"), shape.clone()));
            file.push((format!("{torch}.{one}.bias"), format!("{flax}.{other}.bias"), shape[..1].to_vec()));
        }
        for (one, other) in [("layer_norm1", "LayerNorm_0"), ("layer_norm2", "LayerNorm_1")] {
            file.push((format!("{torch}.{one}.weight"), format!("{flax}.{other}.scale"), vec![WIDTH]));
            file.push((format!("{torch}.{one}.bias"), format!("{flax}.{other}.bias"), vec![WIDTH]));
        }
    }
    file
}

#[test]
fn m3ae_has_channels_last_patches_and_positions_of_waves() {
    let own = vit(2, 3, 5, 2);
    let file = m3ae();
    let torch: Named = file.iter().map(|(name, _, shape)| (name.clone(), tensor(name, shape))).collect();
    let loaded = complete(Family::Vit, &own, torch);
    let flax = file.iter().map(|(torch, flax, shape)| {
        let tensor = tensor(torch, shape);
        let tensor = if flax.ends_with("kernel") { tensor.t().expect("a matrix") } else { tensor };
        (format!("params/{}", flax.replace('.', "/")), tensor.contiguous().expect("a copy"))
    });
    let other = complete(Family::Vit, &own, flax.collect());
    for (name, tensor) in &loaded {
        assert_eq!(flat(tensor), flat(&other[name]), "{name}");
    }
    let patches = flat(&tensor("image_embedding.weight", &[WIDTH, 12]));
    let kernel = flat(&loaded["patch_embed.proj.weight"]);
    let at =
        |unit: usize, channel: usize, row: usize, column: usize| kernel[((unit * 3 + channel) * 2 + row) * 2 + column];
    for (unit, channel, row, column) in [(0, 0, 0, 1), (3, 2, 1, 0), (7, 1, 1, 1)] {
        assert_eq!(at(unit, channel, row, column), patches[unit * 12 + (row * 2 + column) * 3 + channel]);
    }
    // Two by two patches: column, then row, each as the sines and cosines of the number and of a hundredth of it.
    let mark = flat(&tensor("encoder_image_type_embedding", &[1, 1, WIDTH]));
    let (none, one) = ([0.0, 0.0, 1.0, 1.0], [1_f32.sin(), 0.01_f32.sin(), 1_f32.cos(), 0.01_f32.cos()]);
    let waves = [[none, none], [one, none], [none, one], [one, one]].map(|halves| halves.concat());
    let expected: Vec<f32> =
        waves.iter().flat_map(|patch| patch.iter().zip(&mark).map(|(wave, mark)| wave + mark)).collect();
    let positions = flat(&loaded["pos_embed"]);
    assert_eq!(positions[..WIDTH], [0.0; WIDTH]);
    for (got, want) in positions[WIDTH..].iter().zip(expected) {
        assert!((got - want).abs() <= 2e-5, "{got} for {want}");
    }
}

#[test]
fn bert_with_and_without_its_name() {
    let own = bert();
    let file = library("bert, transformers");
    let loaded = complete(Family::Bert, &own, tensors(&file));
    let pairs = [
        ("embeddings.word_embeddings.weight", "bert.embeddings.word_embeddings.weight"),
        ("embeddings.LayerNorm.bias", "bert.embeddings.LayerNorm.bias"),
        ("encoder.layer.1.attention.output.dense.weight", "bert.encoder.layer.1.attention.output.dense.weight"),
        ("encoder.layer.1.output.LayerNorm.weight", "bert.encoder.layer.1.output.LayerNorm.weight"),
    ];
    same(&loaded, &file, &pairs);
    let within = ["query", "key", "value"].map(|of| format!("bert.encoder.layer.0.attention.self.{of}.weight"));
    stacked(&loaded, &file, "encoder.layer.0.attention.self.qkv.weight", within.each_ref().map(String::as_str));

    let bare = file.iter().filter_map(|(name, shape)| {
        let name = name.strip_prefix("bert.")?.replace("LayerNorm.weight", "LayerNorm.gamma");
        Some((name.replace("LayerNorm.bias", "LayerNorm.beta"), shape.clone()))
    });
    complete(Family::Bert, &own, tensors(&bare.collect()));
    complete(Family::Bert, &own, under("module.", &file));
    complete(Family::Bert, &own, tensors(&own).into_iter().filter(|(name, _)| !name.starts_with("adapter.")).collect());
}

#[test]
fn integers_in_place_of_numbers_are_told() {
    let own = shapes(&[("w", &[2]), ("b", &[2])]);
    let zeros = Tensor::zeros(2, DType::F32, &Device::Cpu).expect("zeros");
    let others = [("w", "I8"), ("steps", "I64")].map(|(name, kind)| (name.to_owned(), kind.to_owned()));
    let file = Tensors { floats: [("b".to_owned(), zeros)].into(), others: others.into() };
    let Report { loaded, unlike, unexpected, .. } = translate(Family::Own, &Own::new(own), file).report;
    assert_eq!((loaded, unexpected), (1, vec!["steps".to_owned()]));
    assert_eq!((unlike[0].name.as_str(), unlike[0].given.as_str(), unlike[0].wanted.as_str()), ("w", "I8", "[2]"));
}
