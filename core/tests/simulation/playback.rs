//! Trace files: a scenario and all inputs of its coordinators with their effects, one JSON object per line. Fresh
//! machines and heads must react to these inputs in the same way.

use std::collections::BTreeMap;
use std::rc::Rc;

use antiphon_core::ids::{Term, Turn};
use antiphon_core::time::Time;
use antiphon_core::turn::Effect;
use serde::{Deserialize, Serialize};

use crate::coordinator::{Coordinator, Inbound, Refusal, Sent};
use crate::naive;
use crate::report::{Digest, digest_of};
use crate::scenario::Scenario;
use crate::store::Manifest;

/// A line of a trace file.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Record {
    /// The scenario of the simulation.
    Scenario(Box<Scenario>),
    /// A coordinator becomes the leader, from this checkpoint.
    Begins { at: Time, term: Term, from: Option<Turn> },
    /// An input of the coordinator, and its effects.
    LookedAt { at: Time, inbound: Inbound, effects: Vec<Effect>, refused: Option<String> },
    /// A checkpoint exists.
    Stored { turn: Turn },
    /// The hash of all effects.
    Ends { digest: Digest },
}

/// The lines of a trace file after the scenario.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Recording {
    lines: Vec<String>,
    /// All effects, in order.
    outcomes: String,
}

impl Recording {
    pub(crate) fn begins(&mut self, at: Time, term: Term, from: Option<Turn>) {
        self.push(&Record::Begins { at, term, from });
    }

    pub(crate) fn stored(&mut self, turn: Turn) {
        self.push(&Record::Stored { turn });
    }

    pub(crate) fn looked_at(&mut self, at: Time, inbound: &Inbound, effects: Vec<Effect>, taken: &Result<(), Refusal>) {
        let (inbound, refused) = (inbound.clone(), told(taken));
        self.outcomes.push_str(&outcome(&effects, &refused));
        self.push(&Record::LookedAt { at, inbound, effects, refused });
    }

    fn push(&mut self, record: &Record) {
        self.lines.push(serde_json::to_string(record).expect("plain data"));
    }

    /// The whole file: the scenario comes first.
    pub(crate) fn file(&self, scenario: &Scenario) -> String {
        let scenario = Record::Scenario(Box::new(scenario.clone()));
        let first = serde_json::to_string(&scenario).expect("plain data");
        let end = Record::Ends { digest: digest_of(&self.outcomes) };
        let last = serde_json::to_string(&end).expect("plain data");
        format!("{first}\n{}\n{last}\n", self.lines.join("\n"))
    }
}

fn outcome(effects: &[Effect], refused: &Option<String>) -> String {
    format!("{effects:?} {refused:?}\n")
}

fn told(taken: &Result<(), Refusal>) -> Option<String> {
    taken.as_ref().err().map(|refusal| format!("{refusal:?}"))
}

/// Gives fresh coordinators the inputs in a file. Returns the number of inputs.
///
/// # Errors
/// The first line that cannot be read or whose effects differ.
pub(crate) fn play(file: &str) -> Result<u64, String> {
    let mut lines = file.lines().enumerate();
    let read = |(at, line): (usize, &str)| {
        serde_json::from_str::<Record>(line).map_err(|error| format!("line {}: {error}", at + 1))
    };
    let Some(Ok(Record::Scenario(scenario))) = lines.next().map(read) else {
        return Err("line 1: it is no scenario".to_owned());
    };
    let naive = Rc::new(naive::run(&scenario));
    let mut coordinator: Option<Coordinator> = None;
    let (mut written, mut stored) = (BTreeMap::<Turn, Manifest>::new(), BTreeMap::<Turn, Manifest>::new());
    let (mut count, mut outcomes) = (0, String::new());
    for (number, line) in lines {
        let differs = |what: String| format!("line {}: {what}", number + 1);
        match read((number, line))? {
            Record::Scenario(_) => return Err(differs("another scenario".to_owned())),
            Record::Begins { at, term, from } => {
                let mut before = coordinator.take().map(|old| old.report).unwrap_or_default();
                let from = from.map(|turn| stored.get(&turn).ok_or_else(|| differs(format!("no checkpoint {turn}"))));
                let from = from.transpose()?;
                before.go_back(from.map(|manifest| &manifest.position));
                let started = Coordinator::begin(&scenario, &naive, term, from, at, before);
                coordinator = Some(started.map_err(differs)?);
            }
            Record::Stored { turn } => {
                let manifest = written.get(&turn).ok_or_else(|| differs(format!("{turn} was never written")))?;
                stored.insert(turn, manifest.clone());
            }
            Record::LookedAt { at, inbound, effects, refused } => {
                let leader = coordinator.as_mut().ok_or_else(|| differs("no coordinator leads".to_owned()))?;
                let taken = leader.take(at, inbound);
                for (_, sent) in leader.take_sent().1 {
                    if let Sent::Manifest(manifest) = sent {
                        written.insert(manifest.turn(), *manifest);
                    }
                }
                let ours = std::mem::take(&mut leader.effects);
                if ours != effects || told(&taken) != refused {
                    let taken = told(&taken);
                    return Err(differs(format!("{ours:?} {taken:?} came of it, where {effects:?} {refused:?} did")));
                }
                outcomes.push_str(&outcome(&ours, &refused));
                count += 1;
            }
            Record::Ends { digest } if digest == digest_of(&outcomes) => return Ok(count),
            Record::Ends { digest } => return Err(differs(format!("it ended with {digest:?}"))),
        }
    }
    Err("it has no end".to_owned())
}
