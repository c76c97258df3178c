//! The name of a worker that was given none.

use antiphon_core::ids::{BadName, ModalityName, WorkerId};

/// Letters of a name.
const LONGEST: usize = 63;

/// A name that no other worker has: modality, machine and process tell people which one it is. They do not tell one container from
/// another, in each of which it may be process 1 of a machine of any name, nor a process from the one that was there before it:
/// that is what the last digits are drawn for.
pub(crate) fn fresh(modality: &ModalityName) -> Result<WorkerId, BadName> {
    // Linux; elsewhere a name does without.
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    made_of(modality, &machine, std::process::id(), drawn())
}

/// Other digits in every process, and each time.
#[expect(clippy::disallowed_types, reason = "a name is to be another one each time, and no bit of a run depends on it")]
fn drawn() -> u32 {
    use std::hash::{BuildHasher as _, RandomState};
    (RandomState::new().hash_one(()) >> 32) as u32
}

/// Modality and machine are cut where they are long: what tells workers apart comes last.
fn made_of(modality: &ModalityName, machine: &str, process: u32, drawn: u32) -> Result<WorkerId, BadName> {
    let tail = format!("-{process}-{drawn:08x}");
    let short = machine.trim().split('.').next().unwrap_or_default().to_ascii_lowercase();
    let machine: String = short.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let mut name = modality.to_string();
    if !machine.is_empty() {
        name = format!("{name}-{machine}");
    }
    name.truncate(LONGEST - tail.len());
    WorkerId::try_from(name + &tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(modality: &str, machine: &str) -> String {
        let modality = ModalityName::try_from(modality).expect("a modality");
        made_of(&modality, machine, 1, 0x2f).expect("it is a name").to_string()
    }

    #[test]
    fn it_says_which_worker_it_is_whatever_its_machine_is_called() {
        assert_eq!(name("audio", "node-7"), "audio-node-7-1-0000002f");
        assert_eq!(name("audio", "Node_7.example.org\n"), "audio-node-7-1-0000002f");
        assert_eq!(name("audio", ""), "audio-1-0000002f");
        assert_eq!(name("audio", "größe"), "audio-gr--e-1-0000002f");
        for (modality, machine) in [(63, 0), (63, 63), (5, 253), (5, 46), (5, 47), (5, 48)] {
            let name = name(&"m".repeat(modality), &"h".repeat(machine));
            assert!(name.starts_with("mmmmm") && name.ends_with("-1-0000002f"), "{name}");
        }
    }

    #[test]
    fn two_of_one_process_differ() {
        let modality = ModalityName::try_from("audio").expect("a modality");
        assert_ne!(fresh(&modality), fresh(&modality));
    }
}
