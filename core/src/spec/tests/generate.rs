//! Random jobs of every shape that satisfy every rule.

use super::*;

/// SplitMix64: small, seeded, and good enough for random choices.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(super) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    fn size(&mut self, most: u32) -> u32 {
        1 + self.below(u64::from(most)) as u32
    }

    /// From 0 to below 1, with all digits of an `f64`.
    fn share(&mut self) -> f64 {
        if self.below(4) == 0 { 0.0 } else { (self.next() >> 11) as f64 / (1_u64 << 53) as f64 }
    }

    /// Above 0, of any size.
    fn positive(&mut self) -> f64 {
        (self.share() + 0.1) * 10_f64.powi(self.below(40) as i32 - 20)
    }

    fn text(&mut self) -> String {
        const ODD: [&str; 24] = [
            "a", "B", "7", " ", "\"", "\\", "\n", "\t", "é", "漢", "😀", "${X}", "$", "null", ": ", "# ", "{", "]",
            "%", "\u{1}", "\u{7f}", "\u{85}", "\u{2028}", "\u{feff}",
        ];
        (0..=self.below(6)).map(|_| *self.pick(&ODD)).collect()
    }

    fn texts(&mut self, least: u64) -> Vec<String> {
        (0..least + self.below(3)).map(|_| self.text()).collect()
    }
}

pub(super) fn spec(seed: u64) -> JobSpec {
    let dice = &mut Dice::new(seed);
    let mut names = vec!["image", "audio", "text", "b-2", "a"];
    for n in 0..names.len() {
        names.swap(n, dice.below(5) as usize);
    }
    names.truncate(dice.size(5) as usize);
    let names: Vec<ModalityName> = names.into_iter().map(|name| ModalityName::try_from(name).expect(name)).collect();
    JobSpec {
        name: JobName::try_from("a-job").expect("a name"),
        seed: dice.next(),
        modalities: names.iter().map(|name| modality(dice, name.clone())).collect(),
        labels: LabelSpec { column: dice.text(), classes: classes(dice) },
        head: HeadSpec { width: dice.size(512), projection: projection(dice), optimizer: optimizer(dice) },
        schedule: schedule(dice, &names),
        fusion: fusion(dice, &names),
        checkpoints: CheckpointSpec {
            to: if dice.coin() { None } else { Some(dice.text()) },
            every: every(dice),
            keep: dice.size(9),
        },
        evaluation: EvaluationSpec { every: every(dice), chunk: dice.size(1000) },
    }
}

fn modality(dice: &mut Dice, name: ModalityName) -> ModalitySpec {
    let (input, encoder) = input_and_encoder(dice);
    let workers = WorkerRange { min: 1, max: dice.size(8) };
    let (transfer, precision) = (transfer(dice), *dice.pick(&[Precision::F32, Precision::Bf16]));
    ModalitySpec { name, data: data(dice), input, encoder, transfer, precision, optimizer: optimizer(dice), workers }
}

fn transfer(dice: &mut Dice) -> TransferSpec {
    let weights = WeightsSpec {
        from: dice.text(),
        sha256: dice.coin().then(|| format!("{:064x}", dice.next())),
        strict: dice.coin(),
    };
    TransferSpec {
        weights: dice.coin().then_some(weights),
        freeze: dice.texts(0),
        adapter_lr: if dice.coin() { 1.0 } else { dice.positive() },
    }
}

fn data(dice: &mut Dice) -> DataSpec {
    if dice.coin() {
        let kind = *dice.pick(&[SynthKind::SpokenDigits, SynthKind::Features]);
        return DataSpec::Synth {
            kind,
            column: (*dice.pick(kind.columns())).to_owned(),
            samples: SynthSamples { train: 1 + dice.below(9999), validation: dice.below(99), test: dice.below(99) },
            missing: dice.share(),
            seed: dice.next(),
        };
    }
    DataSpec::Parquet {
        train: dice.texts(1),
        validation: if dice.coin() {
            ValidationSource::Fraction(dice.share())
        } else {
            ValidationSource::Files(dice.texts(1))
        },
        test: dice.texts(0),
        column: dice.text(),
        id: if dice.coin() { None } else { Some(dice.text()) },
    }
}

fn input_and_encoder(dice: &mut Dice) -> (InputSpec, EncoderSpec) {
    let dropout = dice.share();
    let cnn = EncoderSpec::Cnn { channels: (0..dice.size(3)).map(|_| dice.size(64)).collect(), dropout };
    let mlp = EncoderSpec::Mlp { hidden: (0..dice.below(3)).map(|_| dice.size(64)).collect(), dropout };
    let heads = dice.size(8);
    let text = EncoderSpec::Text { width: heads * dice.size(9), layers: dice.size(4), heads, dropout };
    let pooling = *dice.pick(&[Pooling::Cls, Pooling::Mean]);
    let depth = *dice.pick(&[ResnetDepth::Eighteen, ResnetDepth::ThirtyFour, ResnetDepth::Fifty]);
    let resnet = EncoderSpec::Resnet { depth };
    let patch = dice.size(64);
    let size = *dice.pick(&[VitSize::Tiny, VitSize::Small, VitSize::Base]);
    let vit = EncoderSpec::Vit { size, patch, pooling, dropout };
    let size = *dice.pick(&[BertSize::Tiny, BertSize::Mini, BertSize::Small, BertSize::Medium, BertSize::Base]);
    let bert = EncoderSpec::Bert { size, pooling, dropout };
    let tokenizer =
        if dice.coin() { TokenizerSpec::Byte } else { TokenizerSpec::File(format!("{}.json", dice.text())) };
    let side = if dice.coin() { Some(8 + dice.size(64)) } else { None };
    let window = 1 << (5 + dice.below(6));
    let any = [EncoderSpec::Auto, cnn.clone(), mlp.clone(), text.clone(), resnet.clone(), vit.clone(), bert.clone()];
    match dice.below(6) {
        0 => (InputSpec::Auto, dice.pick(&any).clone()),
        1 => (
            InputSpec::Image {
                height: side,
                width: side,
                channels: *dice.pick(&[1, 3]),
                frames: *dice.pick(&[1, 1, 3, 256]),
            },
            dice.pick(&[cnn, resnet]).clone(),
        ),
        5 => (InputSpec::Image { height: Some(patch * 2), width: Some(patch * 3), channels: 3, frames: 1 }, vit),
        2 => (
            InputSpec::Audio {
                sample_rate: 8000 + dice.size(40_000),
                seconds: 0.5 + dice.share() * 7.0,
                mels: 8 + dice.below(u64::from(window / 2 - 8) + 1) as u32,
                window,
                hop: dice.size(window),
            },
            dice.pick(&[cnn, resnet]).clone(),
        ),
        3 => (InputSpec::Text { tokenizer, max_tokens: dice.size(512) }, dice.pick(&[text, bert]).clone()),
        _ => (InputSpec::Features { standardise: dice.coin() }, mlp),
    }
}

fn classes(dice: &mut Dice) -> Classes {
    if dice.coin() {
        return Classes::Count(1 + dice.size(1000));
    }
    let names: BTreeSet<String> = (0..9).map(|_| dice.text()).collect();
    if names.len() < 2 { Classes::Count(2) } else { Classes::Names(names.into_iter().collect()) }
}

fn projection(dice: &mut Dice) -> ProjectionSpec {
    let apply_to = *dice.pick(&[ApplyTo::Gradient, ApplyTo::Update]);
    match dice.below(3) {
        0 => ProjectionSpec::Off,
        1 => ProjectionSpec::Rls {
            alpha: if dice.coin() { Alpha::Decay } else { Alpha::Constant(dice.positive()) },
            reset: *dice.pick(&[Reset::Never, Reset::Epoch]),
            apply_to,
        },
        _ => ProjectionSpec::Window { alpha: dice.positive(), turns: dice.size(99), apply_to },
    }
}

fn optimizer(dice: &mut Dice) -> OptimizerSpec {
    let weight_decay = dice.share();
    let warmup = dice.share() * 5.0;
    let at = dice.positive();
    OptimizerSpec {
        rule: if dice.coin() {
            OptimizerRule::Sgd { momentum: dice.share(), weight_decay }
        } else {
            OptimizerRule::Adamw { beta1: dice.share(), beta2: dice.share(), eps: dice.positive(), weight_decay }
        },
        lr: dice.positive(),
        schedule: match dice.below(3) {
            0 => LearningRateSchedule::Constant { warmup },
            1 => LearningRateSchedule::Step { at: vec![at, at * 2.0, at * 4.5], factor: dice.positive(), warmup },
            _ => LearningRateSchedule::Cosine { floor: dice.share(), warmup },
        },
        clip: if dice.coin() { None } else { Some(dice.positive()) },
    }
}

fn schedule(dice: &mut Dice, names: &[ModalityName]) -> ScheduleSpec {
    ScheduleSpec {
        length: if dice.coin() { Length::Epochs(1 + dice.below(99)) } else { Length::Turns(dice.below(9999)) },
        order: match dice.below(3) {
            0 => TurnOrder::Cyclic,
            1 => TurnOrder::WeakFirst,
            _ => TurnOrder::Weighted(
                names[..dice.size(names.len() as u32) as usize]
                    .iter()
                    .map(|name| (name.clone(), dice.size(9)))
                    .collect(),
            ),
        },
        mode: if dice.coin() { ScheduleMode::Pipelined } else { ScheduleMode::Sequential },
        batch: dice.size(512),
        turn_batches: dice.size(9),
        micro_shards: 1,
        lease_ttl: 15.0,
        turn_deadline: 300.0,
    }
}

fn fusion(dice: &mut Dice, names: &[ModalityName]) -> FusionSpec {
    match dice.below(4) {
        0 => FusionSpec::Entropy,
        1 => FusionSpec::Mean,
        2 => FusionSpec::Tuned,
        _ => FusionSpec::Fixed(names.iter().map(|name| (name.clone(), dice.positive())).collect()),
    }
}

fn every(dice: &mut Dice) -> Every {
    match dice.below(3) {
        0 => Every::Epochs(dice.size(3).into()),
        1 => Every::Turns(dice.size(3).into()),
        _ => Every::End,
    }
}
