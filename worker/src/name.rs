//! The default name of a worker.

use antiphon_core::ids::{BadName, ModalityName, WorkerId};

/// The longest name, in characters.
const LONGEST: usize = 63;

/// A unique name. Modality, machine and process id help a reader to identify the worker. They are not unique:
/// containers may have the same machine name and process 1, and a restarted process may have an old id. So random
/// digits follow.
pub(crate) fn fresh(modality: &ModalityName) -> Result<WorkerId, BadName> {
    // On Linux. On other systems, the name has no machine.
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    made_of(modality, &machine, std::process::id(), drawn())
}

/// Random digits, different in each call.
#[expect(clippy::disallowed_types, reason = "names must differ each time, and no bit of a run depends on them")]
fn drawn() -> u32 {
    use std::hash::{BuildHasher as _, RandomState};
    (RandomState::new().hash_one(()) >> 32) as u32
}

/// Long modalities and machine names are truncated, because the unique part comes last.
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
