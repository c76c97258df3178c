//! Error messages.

use std::error::Error;

/// An error and its causes in one line. It stops when the line contains the innermost cause, because many errors
/// include their causes.
#[must_use]
pub fn full_message(error: &(dyn Error + 'static)) -> String {
    let innermost = innermost(error);
    let mut line = error.to_string();
    for cause in std::iter::successors(error.source(), |&error| error.source()) {
        if line.contains(&innermost) {
            break;
        }
        line = format!("{line}: {cause}");
    }
    line
}

/// The message of the innermost cause. For a broken connection, this is the operating system's message.
#[must_use]
pub fn innermost(error: &(dyn Error + 'static)) -> String {
    std::iter::successors(Some(error), |&error| error.source()).last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Told(&'static str, Option<Box<Told>>);

    impl fmt::Display for Told {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Told {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as &(dyn Error + 'static))
        }
    }

    fn message(chain: &[&'static str]) -> String {
        let told = chain.iter().rev().fold(None, |cause, text| Some(Box::new(Told(text, cause))));
        full_message(&*told.expect("one error at least"))
    }

    #[test]
    fn every_cause_is_named_once() {
        assert_eq!(message(&["alone"]), "alone");
        assert_eq!(message(&["cannot train", "no batch", "disk full"]), "cannot train: no batch: disk full");
        let itself = ["step 3", "cannot read `x`: refused; look there", "client: refused", "refused"];
        assert_eq!(message(&itself), "step 3: cannot read `x`: refused; look there");
    }
}
